import sys
print("1")
print("2", file=sys.stderr)
sys.stdout.write("no newline")
