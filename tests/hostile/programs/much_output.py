# Prints more than is kept, less than ends a program.
import sys

sys.stdout.write("first\n" + "x" * (4 << 20) + "\nlast\n")
