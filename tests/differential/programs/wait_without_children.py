import os
for wait in (os.wait, lambda: os.waitpid(-1, 0), lambda: os.waitid(os.P_ALL, 0, os.WEXITED)):
    try:
        print(wait())
    except ChildProcessError as error:
        print(error)
