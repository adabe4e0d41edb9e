cat("not reached\n") cat("two on a line\n")
