import warnings
for _ in range(2):
    warnings.warn("careful")
warnings.warn("old", DeprecationWarning)
warnings.warn("soon", FutureWarning)
x = 1 is 1
warnings.simplefilter("error")
warnings.warn("now an error")
