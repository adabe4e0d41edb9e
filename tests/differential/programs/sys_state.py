import sys
print(sys.path, sys.flags, sys.getrecursionlimit(), sys.gettrace(), sys.getprofile(), sys.warnoptions)
print(sys.dont_write_bytecode, sys._xoptions, [type(f).__name__ for f in sys.meta_path], sys.path_hooks)
print("sitecustomize" in sys.modules, [e for e in sys.path_importer_cache if "hook" in e])
