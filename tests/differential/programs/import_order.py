import pandas, json, numpy
print(json.dumps({"a": [1]}), numpy.sqrt(4), pandas.__name__)
import importlib; importlib.reload(json); print(json.loads("1"))
