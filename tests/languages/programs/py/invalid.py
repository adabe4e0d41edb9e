print("not reached")
if True
    print("a colon is missing")
