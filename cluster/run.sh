#!/usr/bin/env bash
# `make run`: from nothing to a system that has answered a call. usage: run.sh
. "$(dirname "$0")/env.sh"
. "$ROOT/cluster/progress.sh"

STEPS=5 number=0
step() {
  number=$((number + 1))
  printf '[%d/%d] %s (%d s)\n' "$number" "$STEPS" "$1" "$SECONDS"
}

step "tools of this machine"
"$ROOT/cluster/prerequisites.sh"
step "cluster: $CLUSTER$([ "$CLUSTER" != kind ] || echo ", in $KCR_ENGINE")"
"$ROOT/cluster/up.sh"
step "container images"
"$ROOT/cluster/images.sh"
step "deployment"
"$ROOT/cluster/deploy.sh"
step "first call"
"$ROOT/cluster/first-call.sh"
printf 'ready after %d s; stop it with: make stop\n' "$SECONDS"
