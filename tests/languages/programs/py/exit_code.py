import sys

print("before the end")
sys.exit(7)
