#!/usr/bin/env bash
# The cluster, running. usage: up.sh
. "$(dirname "$0")/env.sh"
. "$ROOT/cluster/progress.sh"
. "$ROOT/cluster/provider.sh"

"$ROOT/cluster/tools.sh"
echo "$CLUSTER" > "$BUILD/cluster"
create
find "$CACHE" -maxdepth 1 -name '*.tar' -mtime +30 -delete    # node and base images of earlier versions
