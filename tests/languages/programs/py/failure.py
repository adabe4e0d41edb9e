def fail():
    raise ValueError("went wrong on purpose")


fail()
