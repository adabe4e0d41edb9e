import sys
print(__name__, __file__, __builtins__ is sys.modules["builtins"], __spec__, __package__, __doc__, __loader__.__class__)
print(sys.modules["__main__"].__dict__ is globals(), sorted(globals()))
