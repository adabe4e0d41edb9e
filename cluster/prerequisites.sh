#!/usr/bin/env bash
# Everything the other scripts need of the machine, asked for at once. usage: prerequisites.sh [COMMAND...]
. "$(dirname "$0")/env.sh"
. "$ROOT/cluster/progress.sh"

needed=(python3 curl "$@")
if [ "$KCR_ENGINE" = podman ]; then
  needed+=(podman)
  # no registry is in reach of most machines without Docker, and what is built needs these; crun cannot do cgroup v1
  needed+=(debootstrap debian-archive-keyring jq gcc)
  [ "$(cgroup_version)" = 2 ] || needed+=(runc)
fi
# Go builds the object store, and what of kind and kubectl is not installed
needed+=(go)
"$ROOT/cluster/packages.sh" "${needed[@]}"
say "containers: $("$KCR_ENGINE" --version); Go: $(go env GOVERSION); Python: $(python3 -V)"
