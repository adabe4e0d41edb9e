#!/usr/bin/env bash
# Everything slow that needs no cluster: tools, node image, our images, stores for tests/store, an API server for tests/faults.
# usage: prepare.sh
. "$(dirname "$0")/env.sh"
. "$ROOT/cluster/progress.sh"

"$ROOT/cluster/tools.sh"
node=
[ "$CLUSTER" != kind ] || node=$("$ROOT/cluster/node-image.sh")
"$ROOT/cluster/images.sh"
# nothing but tests/store needs both, and that says what is missing
"$ROOT/cluster/binaries.sh" versitygw minio >/dev/null || say "not all stores could be built: their tests will fail"
# the same of tests/faults; the node image has built both already, where that was built here
"$ROOT/cluster/control-plane.sh" || say "etcd and kube-apiserver could not be built: tests/faults will fail"
# a node that was pulled enforces network policies by itself
[[ $node != localhost/* ]] || "$ROOT/cluster/binaries.sh" kube-network-policies >/dev/null \
  || say "kube-network-policies could not be built: the tests of network policies will fail"
