def g():
    raise OSError('in tool')
g()
