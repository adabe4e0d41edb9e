program typical
  implicit none
  real :: a(3, 3), b(3, 3)
  integer :: i
  a = reshape([(real(i), i = 1, 9)], [3, 3])
  b = matmul(a, transpose(a))
  print '(f8.1)', sum(b)
end program typical
