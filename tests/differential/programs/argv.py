# run: {"args": ["a b", "", "ü", "--x=1"]}
import sys
print(sys.argv, sys.orig_argv[1:], len(sys.argv))
