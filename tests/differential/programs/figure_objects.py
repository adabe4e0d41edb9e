import inspect, os, pickle, sys
import matplotlib, matplotlib.pyplot as plt
from matplotlib.figure import Figure
print(matplotlib.get_backend(), Figure.savefig.__qualname__, Figure.savefig.__module__, inspect.signature(Figure.savefig))
print(inspect.getsourcefile(Figure.savefig) == matplotlib.figure.__file__, len(inspect.getsource(Figure.savefig)) > 1000)
print(plt.savefig.__doc__ == Figure.savefig.__doc__, Figure.draw._supports_rasterization, inspect.signature(Figure.draw))
figure, axes = plt.subplots()
axes.plot([1, 2])
print(figure.savefig("a.png"), figure.savefig(fname="b.png", transparent=True), plt.savefig("c.png"))
print(sorted(os.listdir(".")), plt.get_fignums())
again = pickle.loads(pickle.dumps(figure))
print(len(again.axes), sorted(name for name in figure.__dict__ if "kcr" in name.lower() or "kube" in name.lower()))
print(sorted(name for name in sys.modules if "kube" in name or "kcr" in name or name == "figures"))
plt.show(block=False)
print(plt.get_fignums())
plt.close("all")
