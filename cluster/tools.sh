#!/usr/bin/env bash
# kubectl and kind: those of the machine if they are new enough, else built into build/bin. usage: tools.sh
. "$(dirname "$0")/env.sh"
. "$ROOT/cluster/progress.sh"

# Second part of a program's version; 0 if it is not there.
kubectl_minor() { kubectl version --client 2>/dev/null | sed -n 's/^Client Version: v1\.\([0-9]*\).*/\1/p'; }
kind_minor() { kind version 2>/dev/null | sed -n 's/^kind v0\.\([0-9]*\).*/\1/p'; }

wanted=()
[ "$(kubectl_minor || true)" -ge 30 ] 2>/dev/null || wanted+=(kubectl)
[ "$CLUSTER" != kind ] || [ "$(kind_minor || true)" -ge 33 ] 2>/dev/null || wanted+=(kind)
if ((${#wanted[@]})); then
  "$ROOT/cluster/packages.sh" go
  "$ROOT/cluster/binaries.sh" "${wanted[@]}" >/dev/null
fi
