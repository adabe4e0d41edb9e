import warnings
import matplotlib.pyplot as plt
plt.title("漢")
plt.savefig("a.png")
plt.figure(); plt.title("字")
plt.gcf().canvas.draw()
warnings.simplefilter("error")
plt.figure(); plt.title("語")
try:
    plt.savefig("b.png")
except UserWarning as warning:
    print("raised:", warning)
plt.close("all")
