import pandas as pd

frame = pd.DataFrame({"name": ["a", "b", "a"], "value": [1, 2, 3]})
print(frame.groupby("name")["value"].sum().to_dict())
