# Fills the scratch space, and does not deal with that.
print("begin", flush=True)
with open("big", "wb") as file:
    while True:
        file.write(bytes(1 << 20))
