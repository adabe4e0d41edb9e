import resource
print([resource.getrlimit(x) for x in (resource.RLIMIT_CPU, resource.RLIMIT_STACK, resource.RLIMIT_AS)])
