suppressPackageStartupMessages(library(dplyr))
frame <- data.frame(name = c("a", "b", "a"), value = 1:3)
sums <- frame %>% group_by(name) %>% summarise(total = sum(value))
cat(sums$total, "\n")
