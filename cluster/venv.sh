#!/usr/bin/env bash
# build/venv: everything in pyproject's extra `test` at the versions of constraints.txt, and our packages importable.
# usage: venv.sh
. "$(dirname "$0")/env.sh"
. "$ROOT/cluster/progress.sh"

venv=$BUILD/venv
key=$(hash_of "$ROOT/pyproject.toml" "$ROOT/constraints.txt" "$ROOT/cluster/venv.sh" <<<"$(python3 -V)")
if [ "$(cat "$venv/.key" 2>/dev/null)" = "$key" ]; then
  say "build/venv is up to date"
  exit
fi

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed; python3 is $(python3 -V)"
"$ROOT/cluster/packages.sh" venv
rm -rf "$venv"
quietly "make build/venv" python3 -m venv "$venv"
"$venv/bin/python" "$ROOT/images/requirements.py" "$ROOT/pyproject.toml" test > "$BUILD/requirements.txt"
export PIP_DISABLE_PIP_VERSION_CHECK=1
quietly "pip install" timeout 900 "$venv/bin/pip" install --no-compile --only-binary :all: -c "$ROOT/constraints.txt" -r "$BUILD/requirements.txt"
printf '%s\n' "$ROOT"/{crds,operator,api,sidecar,runner} > "$(echo "$venv"/lib/python3*/site-packages)/kubecoderun.pth"
echo "$key" > "$venv/.key"
