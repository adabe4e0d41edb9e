import os
import matplotlib.pyplot as plt
plt.show()
print(os.listdir("."), plt.get_fignums())
