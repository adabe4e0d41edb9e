import random, json
print(random.x, json.__name__)
