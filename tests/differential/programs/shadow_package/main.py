import pandas.sub
print(pandas.sub.y)
