"""The operator: keeps pools of warm pods at size, gives every execution session one pod, and writes its
result.

Modules that decide (`members`, `allocator`, `sizing`, `conditions`, `pods`, `orders`, `outcomes`,
`recovery`) take and return plain data. The others carry out what was decided; only `cluster` talks to the
API server (beside kopf's watches) and only `sidecars` talks to pods.
"""
