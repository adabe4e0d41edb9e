import numpy
print(numpy.__file__, numpy.x)
