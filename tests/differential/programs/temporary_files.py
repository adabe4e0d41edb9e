import tempfile, os
t = tempfile.TemporaryDirectory()
print(os.path.isdir(t.name), tempfile.gettempdir())
