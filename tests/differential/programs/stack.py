import traceback, inspect, sys
def f():
    traceback.print_stack(file=sys.stdout)
    print(len(inspect.stack()), sys._getframe(1).f_back)
f()
