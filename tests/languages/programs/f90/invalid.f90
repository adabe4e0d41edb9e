program invalid
  implicit none
  print '(a)', 'not reached'
  number = 1
end program invalid
