print("a"); quit(3)
