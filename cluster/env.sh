# shellcheck shell=bash
# shellcheck disable=SC2034
# Sourced by every script here: folders, names, versions, and what the machine allows.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$ROOT/build                                         # everything this checkout makes; `make clean` removes it
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/kubecoderun         # slow builds, shared by all checkouts
LOGS=$BUILD/log
mkdir -p "$BUILD/bin" "$LOGS" "$CACHE"

# kind | current (the cluster of your kubeconfig). What was started last counts until `make stop`.
CLUSTER=${CLUSTER:-$(cat "$BUILD/cluster" 2>/dev/null || echo kind)}
CLUSTER_NAME=${KCR_CLUSTER_NAME:-kcr}                     # of the kind cluster; another for a second one on the machine
KCR_PORT=${KCR_PORT:-8000}                                # the front end's port on 127.0.0.1
NODE_PORT=30800                                           # ... and on the cluster's node
SYSTEM_NAMESPACE=kubecoderun-system
# versitygw | minio: the object store inside the cluster. What was deployed last counts until `make stop`.
STORE=${STORE:-$(cat "$BUILD/object-store" 2>/dev/null || echo versitygw)}
case $STORE in
  versitygw) STORE_PART=store STORE_OVERLAY=dev ;;
  minio) STORE_PART=minio STORE_OVERLAY=dev-minio ;;
  *) echo "error: STORE=$STORE: use versitygw or minio" >&2; exit 1 ;;
esac
# python (and Bash) | most: JavaScript, TypeScript and what is compiled to machine code, too | all: Java, PHP and R, too.
# What was deployed last counts until `make stop`.
LANGUAGES=${LANGUAGES:-$(cat "$BUILD/languages" 2>/dev/null || echo python)}
PARTS="operator api sidecar python $STORE_PART"           # images of ours, images/<part>.Containerfile
case $LANGUAGES in
  python) ;;
  most) PARTS="$PARTS nodejs native" ;;
  all) PARTS="$PARTS nodejs native jvm php r" ;;
  *) echo "error: LANGUAGES=$LANGUAGES: use python, most or all" >&2; exit 1 ;;
esac
if [ "$LANGUAGES" != python ]; then
  [ "$STORE" = versitygw ] || { echo "error: LANGUAGES=$LANGUAGES goes with STORE=versitygw" >&2; exit 1; }
  STORE_OVERLAY=dev-$LANGUAGES
fi

KIND_VERSION=v0.33.0
KUBERNETES_VERSION=1.35.4       # built node: the last minor for containerd 1.x (Debian bookworm) and for cgroup v1
ETCD_VERSION=v3.6.6
COREDNS_VERSION=v1.15.0
VERSITYGW_VERSION=v1.8.0
MINIO_VERSION=v0.0.0-20260212201848-7aac2a2c5b7c    # the last commit upstream: its releases are no Go module versions
KUBE_NETWORK_POLICIES_VERSION=v0.8.0    # enforces NetworkPolicies in a built node while they are tested
# Names `kubeadm config images list` gives for KUBERNETES_VERSION; the built node carries images so named.
ETCD_IMAGE=registry.k8s.io/etcd:3.6.6-0
COREDNS_IMAGE=registry.k8s.io/coredns/coredns:v1.13.1
PAUSE_IMAGE=registry.k8s.io/pause:3.10

export CLUSTER STORE LANGUAGES KCR_PORT
export KCR_USER_KUBECONFIG=${KCR_USER_KUBECONFIG-${KUBECONFIG:-$HOME/.kube/config}}
export KUBECONFIG=$BUILD/kubeconfig                       # kind's, or a copy of the user's current context
export PATH=$BUILD/bin:$PATH:/usr/local/go/bin

# Which program makes and runs containers: docker where its daemon answers, else podman. Asked once per process tree.
if [ -z "${KCR_ENGINE:-}" ]; then
  if timeout 10 docker info >/dev/null 2>&1; then KCR_ENGINE=docker; else KCR_ENGINE=podman; fi
  export KCR_ENGINE
fi

# True when this process may raise resource limits (CAP_SYS_RESOURCE, bit 24).
may_raise_limits() {
  local effective
  effective=$(awk '/^CapEff:/{print $2}' /proc/self/status)
  (( (16#$effective >> 24) & 1 ))
}

cgroup_version() { if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then echo 2; else echo 1; fi; }

# podman asks for higher limits than a host without CAP_SYS_RESOURCE may set, and for systemd where there is none;
# crun, its default, starts no container with a cgroup namespace where some controllers are cgroup v1 and some v2.
write_podman_settings() {
  {
    echo '[containers]'
    may_raise_limits || echo "default_ulimits = [\"nofile=$(ulimit -Hn):$(ulimit -Hn)\", \"nproc=30000:30000\"]"
    echo '[engine]'
    [ "$(cgroup_version)" = 2 ] || echo 'runtime = "runc"'
    [ -d /run/systemd/system ] || echo 'cgroup_manager = "cgroupfs"'
  } > "$BUILD/containers.conf"
}

if [ "$KCR_ENGINE" = podman ]; then
  write_podman_settings
  export CONTAINERS_CONF=$BUILD/containers.conf KIND_EXPERIMENTAL_PROVIDER=podman
fi

# First 12 hex digits of a hash over the given files' contents (folders: all files in them) and over standard input.
hash_of() {
  {
    cat
    find "$@" -type f -not -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum \
      | sed "s#  $ROOT/#  #"
  } | sha256sum | cut -c1-12
}
