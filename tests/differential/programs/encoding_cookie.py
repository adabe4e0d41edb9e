# -*- coding: latin-1 -*-
print("hé")
