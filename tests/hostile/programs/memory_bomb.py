# Takes memory piece by piece.
kept = []
print("begin", flush=True)
while True:
    kept.append(bytearray(b"x" * (1 << 20)))
