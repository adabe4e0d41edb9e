cat("before the end\n")
quit(status = 7)
