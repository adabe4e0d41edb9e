program failure
  error stop 'went wrong on purpose'
end program failure
