import cProfile, sys
def f(): return sum(range(10))
p = cProfile.Profile(); p.runcall(f); print(len(p.getstats()) > 0)
