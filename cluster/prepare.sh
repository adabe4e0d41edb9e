#!/usr/bin/env bash
# Everything slow that needs no cluster: tools, node image, our images, stores for tests/store. usage: prepare.sh
. "$(dirname "$0")/env.sh"
. "$ROOT/cluster/progress.sh"

"$ROOT/cluster/tools.sh"
[ "$CLUSTER" != kind ] || "$ROOT/cluster/node-image.sh" >/dev/null
"$ROOT/cluster/images.sh"
# nothing but tests/store needs both, and that says what is missing
"$ROOT/cluster/binaries.sh" versitygw minio >/dev/null || say "not all stores could be built: their tests will fail"
