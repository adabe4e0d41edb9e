import random, numpy as np
random.seed(1); np.random.seed(1)
print(random.random(), np.random.rand(2), np.random.default_rng(3).integers(9))
