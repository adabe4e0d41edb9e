#!/usr/bin/env bash
# Writes constraints.txt: the newest versions that pyproject.toml allows, for Python 3.11 and newer; and the same for what
# programs find in the Python image, images/python.constraints. usage: constraints.sh
. "$(dirname "$0")/env.sh"

"$BUILD/venv/bin/pip" install -q uv
{
  sed '/^[^#]/,$d' "$ROOT/constraints.txt"
  "$BUILD/venv/bin/uv" pip compile -q --universal --python-version 3.11 --no-header --no-annotate --upgrade \
    "$ROOT/pyproject.toml" --extra test
} > "$BUILD/constraints.txt"
mv "$BUILD/constraints.txt" "$ROOT/constraints.txt"
{
  echo '# Exact versions of everything in python.packages. `make constraints` writes it again.'
  "$BUILD/venv/bin/uv" pip compile -q --universal --python-version 3.11 --no-header --no-annotate --upgrade \
    -c "$ROOT/constraints.txt" "$ROOT/images/python.packages"
} > "$BUILD/constraints.txt"
mv "$BUILD/constraints.txt" "$ROOT/images/python.constraints"
