# run: {"stdin": "one\ntwö\nthree"}
import sys
print(repr(input("? ")))
print(sys.stdin.read())
try:
    input()
except EOFError as e:
    print("eof", e)
