program exit_code
  print '(a)', 'before the end'
  call exit(7)
end program exit_code
