import os
print({k: v for k, v in os.environ.items() if k not in ("_", "SHLVL", "PWD", "OLDPWD", "HOSTNAME")})
print(os.getcwd(), os.listdir("."))
