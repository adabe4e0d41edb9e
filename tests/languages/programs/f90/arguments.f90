program arguments
  implicit none
  integer :: i, length
  character(len=:), allocatable :: text
  do i = 1, command_argument_count()
    call get_command_argument(i, length=length)
    allocate(character(len=length) :: text)
    call get_command_argument(i, text)
    print '(3a)', '[', text, ']'
    deallocate(text)
  end do
end program arguments
