# Holds an R up before it reads its program, whose file it has opened (held.py).
local({
  wanted <- strsplit(Sys.getenv("KCR_HELD_MODULES"), ",", fixed = TRUE)[[1]]
  Sys.unsetenv(c("R_PROFILE_USER", "KCR_HELD_MODULES"))
  # as R itself would do it next
  .OptRequireMethods()
  for (name in getOption("defaultPackages")) {
    require(name, quietly = TRUE, warn.conflicts = FALSE, character.only = TRUE)
  }
  for (name in wanted) suppressMessages(suppressWarnings(requireNamespace(name, quietly = TRUE)))
  gc()
  report <- file("/dev/fd/4", "wb", raw = TRUE)
  writeBin(as.raw(0), report)
  close(report)
  orders <- file("/dev/fd/3", "rb", raw = TRUE)
  message <- readBin(orders, "raw", 2^20)
  close(orders)
  if (length(message) == 0) quit("no")
})
