#!/usr/bin/env bash
# Builds programs from Go modules into the cache, once per version, and links them in build/bin.
# usage: binaries.sh [NAME...]    of: kind kubectl versitygw minio etcd coredns kubeadm kubelet kube-apiserver
#                                 kube-controller-manager kube-scheduler kube-proxy kube-network-policies
# Prints the folder that holds them; without a name it builds nothing. On 2 cores: about 8 minutes for all but minio with a
# cold Go cache, a minute and a half warm.
. "$(dirname "$0")/env.sh"
. "$ROOT/cluster/progress.sh"
. "$ROOT/cluster/registry.sh"

export CGO_ENABLED=0 GOFLAGS=-buildvcs=false
versions="$KIND_VERSION $KUBERNETES_VERSION $ETCD_VERSION $COREDNS_VERSION $VERSITYGW_VERSION $MINIO_VERSION"
versions+=" $KUBE_NETWORK_POLICIES_VERSION"
out=$CACHE/bin/$(hash_of "$ROOT/cluster/binaries.sh" <<<"$versions")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/out"

# One module whose replace lines name the published staging modules (k8s.io/api and so on).
build_kubernetes() { # COMMAND...
  local module command version=k8s.io/component-base/version packages=()
  mkdir "$work/kubernetes" && cd "$work/kubernetes"
  module=$(go mod download -json "k8s.io/kubernetes@v$KUBERNETES_VERSION" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
  {
    printf 'module kubecoderun.io/development\n\ngo 1.25.0\n\nrequire k8s.io/kubernetes v%s\n\nreplace (\n' "$KUBERNETES_VERSION"
    grep -oE 'k8s.io/[a-z-]+ => ./staging' "$module" | awk -v v="v0.${KUBERNETES_VERSION#1.}" '{print "\t" $1 " => " $1 " " v}'
    echo ')'
  } > go.mod
  printf '//go:build tools\n\npackage tools\n\n' > tools.go
  for command in "$@"; do
    packages+=("k8s.io/kubernetes/cmd/$command")
    echo "import _ \"k8s.io/kubernetes/cmd/$command\"" >> tools.go
  done
  go mod tidy
  go build -trimpath -o "$work/out/" -ldflags "-s -w -X $version.gitVersion=v$KUBERNETES_VERSION \
    -X $version.gitMajor=1 -X $version.gitMinor=${KUBERNETES_VERSION:2:2}" "${packages[@]}"
}

build_module() { # NAME MODULE@VERSION PACKAGE
  mkdir "$work/$1" && cd "$work/$1"
  printf 'module kubecoderun.io/%s\n\ngo 1.25.0\n' "$1" > go.mod
  printf '//go:build tools\n\npackage tools\n\nimport _ "%s"\n' "$3" > tools.go
  go get "$2"
  go mod tidy
  go build -trimpath -ldflags "-s -w" -o "$work/out/$1" "$3"
}

build() { # NAME: into $work/out
  case $1 in
    kind) build_module kind "sigs.k8s.io/kind@$KIND_VERSION" sigs.k8s.io/kind ;;
    etcd) build_module etcd "go.etcd.io/etcd/server/v3@$ETCD_VERSION" go.etcd.io/etcd/server/v3 ;;
    coredns) build_module coredns "github.com/coredns/coredns@$COREDNS_VERSION" github.com/coredns/coredns ;;
    versitygw) build_module versitygw "github.com/versity/versitygw@$VERSITYGW_VERSION" github.com/versity/versitygw/cmd/versitygw ;;
    minio) build_module minio "github.com/minio/minio@$MINIO_VERSION" github.com/minio/minio ;;
    kube-network-policies)
      build_module "$1" "sigs.k8s.io/kube-network-policies@$KUBE_NETWORK_POLICIES_VERSION" sigs.k8s.io/kube-network-policies/cmd
      ;;
    *) fail "unknown program $1" ;;
  esac
}

# The same script in a container that has Go; folders keep their paths.
build_in_container() {
  local ca=/etc/ssl/certs/ca-certificates.crt options=(-v "$ROOT:$ROOT" -v "$CACHE:$CACHE")
  [ ! -f "$ca" ] || options+=(-v "$ca:$ca:ro")
  "$KCR_ENGINE" run --rm --network host "${options[@]}" -e KCR_ENGINE=none -e XDG_CACHE_HOME="$(dirname "$CACHE")" \
    -e http_proxy -e https_proxy -e no_proxy -e GOPROXY "$GO_IMAGE" "$ROOT/cluster/binaries.sh" "$@"
}

for name in "$@"; do
  if [ ! -x "$out/$name" ] && ! go_works; then
    go_in_container || fail "Go 1.25 or newer is needed: https://go.dev/dl"
    build_in_container "$@" >&2
    break
  fi
done
kubernetes=()
for name in "$@"; do
  [ ! -x "$out/$name" ] || continue
  case $name in
    kubectl | kubeadm | kubelet | kube-apiserver | kube-controller-manager | kube-scheduler | kube-proxy) kubernetes+=("$name") ;;
    *)
      quietly "go build $name" build "$name" >&2
      mv "$work/out/$name" "$out/"
      ;;
  esac
done
if ((${#kubernetes[@]})); then
  quietly "go build Kubernetes" build_kubernetes "${kubernetes[@]}" >&2
  mv "$work"/out/* "$out/"
fi
for name in "$@"; do
  case $name in
    kind | kubectl) ln -sfn "$out/$name" "$BUILD/bin/$name" ;;
  esac
done
echo "$out"
