"""Runs inside an image build: precompiles C++ headers with exactly the options programs are compiled with.

usage: precompile.py FOLDER_OF_LANGUAGES_PY TARGET HEADER...
"""

import subprocess
import sys
from pathlib import Path

folder, target, *headers = sys.argv[1:]
sys.path.insert(0, folder)
languages = __import__("languages")

options = [part for part in languages.BY_NAME["cpp"].compile[1:] if part.startswith("-") and part != "-o"]
Path(target).mkdir(parents=True)
for header in headers:
    # found as a program would find it, and not under a name of ours, which messages would then show
    found = subprocess.run(
        ["g++", *options, "-x", "c++", "-M", "-"],
        input=f"#include <{header}>\n",
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    source = next(path for path in found if path.endswith(f"/{header}"))
    subprocess.run(["g++", *options, "-x", "c++-header", source, "-o", f"{target}/{header}.gch"], check=True)
