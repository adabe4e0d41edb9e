text <- readLines("données.txt", encoding = "UTF-8")
dir.create("out")
writeLines(c(text, "more"), "out/copy.txt", useBytes = TRUE)
cat("written\n")
