import ctypes
print("py", flush=True)
ctypes.CDLL(None).printf(b"from C %d\n", 5)
