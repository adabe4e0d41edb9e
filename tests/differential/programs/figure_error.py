import matplotlib.pyplot as plt
plt.plot([1, 2])
try:
    plt.savefig("a.unknown")
except ValueError as error:
    print(error, error.__traceback__.tb_next.tb_next.tb_frame.f_code.co_qualname if hasattr(error.__traceback__.tb_frame.f_code, "co_qualname") else "")
plt.close("all")
plt.figure().savefig("nowhere/a.png")
