fail <- function() stop("went wrong on purpose")
fail()
