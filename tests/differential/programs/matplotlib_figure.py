import matplotlib, matplotlib.pyplot as plt
print(matplotlib.get_backend(), plt.get_fignums(), matplotlib.rcParams["figure.dpi"])
plt.plot([1, 2]); plt.savefig("a.png")
import os; print(os.path.getsize("a.png") > 1000)
