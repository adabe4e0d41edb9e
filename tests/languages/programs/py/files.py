from pathlib import Path

text = Path("données.txt").read_text(encoding="utf-8")
Path("out").mkdir()
Path("out/copy.txt").write_text(text + "more\n", encoding="utf-8")
print("written")
