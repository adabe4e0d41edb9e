#!/usr/bin/env bash
# Takes away what `make run` made, except build/ and the caches of slow builds. usage: stop.sh
. "$(dirname "$0")/env.sh"
. "$ROOT/cluster/progress.sh"
. "$ROOT/cluster/provider.sh"

destroy
rm -f "$BUILD/env" "$BUILD/cluster" "$BUILD/object-store" "$BUILD/languages" "$BUILD/kubeconfig"
say "stopped"
