import os
prnit("typo")
