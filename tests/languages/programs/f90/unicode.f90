program unicode
  implicit none
  character(len=*), parameter :: text = 'Grüße, 世界 🌍'
  integer :: i, points
  points = 0
  do i = 1, len(text)
    if (iand(ichar(text(i:i)), 192) /= 128) points = points + 1
  end do
  print '(a)', text
  print '(i0)', points
end program unicode
