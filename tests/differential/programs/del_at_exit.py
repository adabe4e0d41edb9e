class Loud:
    def __init__(self, name): self.name = name
    def __del__(self): print("del", self.name)

keep = Loud("global")
class Holder: pass
a, b = Holder(), Holder()
a.b, b.a, a.loud = b, a, Loud("cycle")
print("end")
