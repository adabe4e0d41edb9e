module adding
  implicit none
contains
  subroutine add(total, number)
    integer, intent(inout) :: total
    integer, intent(in) :: number
    total = total + number
  end subroutine add
end module adding

program stdin
  use adding
  implicit none
  integer :: number, total, status
  total = 0
  do
    read (*, *, iostat=status) number
    if (status /= 0) exit
    call add(total, number)
  end do
  print '(i0)', total
end program stdin
