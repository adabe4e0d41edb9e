text <- "Grüße, 世界 🌍"
cat(text, "\n", sep = "")
cat(nchar(text), "\n", sep = "")
