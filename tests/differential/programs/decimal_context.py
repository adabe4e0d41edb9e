import decimal, gc
print(decimal.getcontext(), gc.isenabled(), gc.get_threshold(), gc.get_debug())
