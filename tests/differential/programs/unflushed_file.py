f = open("out.txt", "w")
f.write("kept")
import atexit
atexit.register(lambda: print(open("out.txt").read() or "empty"))
