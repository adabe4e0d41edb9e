def inner(x):
    return 1 / x

def outer():
    try:
        inner(0)
    except ZeroDivisionError as error:
        raise RuntimeError("über") from error

print("before", flush=True)
outer()
