# Opens files for as long as it can.
kept = []
while True:
    kept.append(open("/dev/null"))
