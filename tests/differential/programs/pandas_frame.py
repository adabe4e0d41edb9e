import pandas as pd
df = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
print(df.describe(include="all")); print(df.to_csv()); print(pd.get_option("display.width"))
