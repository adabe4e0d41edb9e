# run: {"stdin_bytes": 300000}
print("done")
