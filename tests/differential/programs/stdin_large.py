# run: {"stdin_bytes": 300000}
import sys
print(len(sys.stdin.buffer.read()))
