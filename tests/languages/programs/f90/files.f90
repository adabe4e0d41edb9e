program files
  implicit none
  character(len=100) :: line
  integer :: status
  call execute_command_line('mkdir out')
  open (10, file='données.txt', status='old')
  open (11, file='out/copy.txt', status='new')
  do
    read (10, '(a)', iostat=status) line
    if (status /= 0) exit
    write (11, '(a)') trim(line)
  end do
  write (11, '(a)') 'more'
  print '(a)', 'written'
end program files
