import numpy as np
print(np.geterr(), np.get_printoptions(), np.arange(3) / 0)
