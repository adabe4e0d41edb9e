import atexit
for i in range(3):
    atexit.register(print, "at exit", i)
raise SystemExit(4)
