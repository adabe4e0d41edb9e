#!/usr/bin/env bash
# Everything slow that needs no cluster: tools, node image, our images. usage: prepare.sh
. "$(dirname "$0")/env.sh"

"$ROOT/cluster/tools.sh"
[ "$CLUSTER" != kind ] || "$ROOT/cluster/node-image.sh" >/dev/null
"$ROOT/cluster/images.sh"
