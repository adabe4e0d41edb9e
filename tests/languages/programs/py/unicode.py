text = "Grüße, 世界 🌍"
print(text)
print(len(text))
