#!/usr/bin/env bash
# etcd and kube-apiserver for tests/faults; writes their folder into build/binaries. usage: control-plane.sh
. "$(dirname "$0")/env.sh"

folder=$("$ROOT/cluster/binaries.sh" etcd kube-apiserver)
echo "$folder" > "$BUILD/binaries"
