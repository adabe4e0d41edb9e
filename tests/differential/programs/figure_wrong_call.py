import matplotlib.pyplot as plt
figure = plt.figure()
try:
    figure.savefig()
except TypeError as error:
    print(error, error.__traceback__.tb_next)
figure.draw()
