import tool, pkg.inner
print(tool.f(), pkg.inner.z, tool.__file__)
