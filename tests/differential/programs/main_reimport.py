import importlib, sys
if __name__ == "__main__":
    import main
    print("again", main.__name__, main is sys.modules["__main__"])
else:
    print("imported as", __name__)
