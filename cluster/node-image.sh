#!/usr/bin/env bash
# The kind node's image; prints its name. kind's own where a registry answers, else one made of Debian packages and the
# programs of binaries.sh, kept as an archive in the cache. Making it needs root, debootstrap, jq, gcc and Go (whose
# module cache holds kind's node files).
. "$(dirname "$0")/env.sh"
. "$ROOT/cluster/progress.sh"
. "$ROOT/cluster/debian.sh"
. "$ROOT/cluster/registry.sh"

# The image of kind $KIND_VERSION. It does not start on cgroup v1 or where limits cannot be raised; the one made here does.
public=${NODE_IMAGE:-docker.io/kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5}
if [ "$(cgroup_version)" = 2 ] && may_raise_limits && pulled "$public"; then
  echo "$public"
  exit
fi

programs="kubeadm kubelet kubectl kube-apiserver kube-controller-manager kube-scheduler kube-proxy etcd coredns"
key=$(hash_of "$ROOT/cluster/node-image.sh" "$ROOT/cluster/debian.sh" "$ROOT/cluster/binaries.sh" "$ROOT/cluster/node" \
  <<<"$KIND_VERSION $KUBERNETES_VERSION $ETCD_VERSION $COREDNS_VERSION $ETCD_IMAGE $COREDNS_IMAGE $PAUSE_IMAGE")
name=localhost/kubecoderun-node:$key
archive=$CACHE/node-$key.tar

systemd_packages=systemd,systemd-sysv,dbus,util-linux,mount,kmod,procps,bash
node_packages=containerd,runc,conntrack,iptables,nftables,iproute2,ethtool,libseccomp2,socat,ebtables,rsync,e2fsprogs
node_packages+=,ca-certificates,curl,jq,containernetworking-plugins

# bookworm: systemd of trixie does not boot on cgroup v1
make_root() { # ROOT BINARIES
  local root=$1 binaries=$2 files
  debian_root bookworm "$root" "$systemd_packages,$node_packages"
  files=$(go mod download -json "sigs.k8s.io/kind@$KIND_VERSION" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')/images/base/files
  cp -r "$files/." "$root/"
  chmod -R u+w "$root/kind" "$root/etc/systemd" "$root/etc/containerd" "$root/usr/local/bin"
  chmod 755 "$root/kind" "$root/kind/bin" "$root"/kind/bin/* "$root"/usr/local/bin/*
  install -m 755 "$binaries"/{kubeadm,kubelet,kubectl} "$root/usr/bin/"
  printf 'v%s' "$KUBERNETES_VERSION" > "$root/kind/version"
}

# What kind's own Dockerfile does to systemd, and the folders and links it makes.
adapt_root() { # ROOT
  local root=$1 program
  rm -f "$root"/lib/systemd/system/{multi-user,local-fs,basic}.target.wants/* "$root"/etc/systemd/system/*.wants/* \
    "$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}* \
    "$root"/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service
  echo ReadKMsg=no >> "$root/etc/systemd/journald.conf"
  # a host without CAP_SYS_RESOURCE cannot write a negative oom_score_adj: every sandbox would fail
  sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' "$root/etc/containerd/config.toml"
  for program in containerd ctr containerd-shim-runc-v2; do ln -sf /usr/bin/$program "$root/usr/local/bin/$program"; done
  mkdir -p "$root"/usr/local/sbin "$root"/opt/cni/bin "$root"/etc/cni/net.d "$root"/etc/kubernetes/manifests \
    "$root"/kind/manifests "$root"/kind/images
  ln -sf /usr/sbin/runc "$root/usr/local/sbin/runc"
  cp "$root"/usr/lib/cni/* "$root/opt/cni/bin/"
  # no rlimits: the same missing right again
  chroot "$root" ctr oci spec | jq '.hooks.createContainer += [{"path": "/kind/bin/mount-product-files.sh"}]
    | del(.process.rlimits)' > "$root/etc/containerd/cri-base.json"
  # kind's network program is an image nobody can pull here: a plain bridge (one node, no NetworkPolicy, no way outside)
  cp "$ROOT/cluster/node/10-bridge.conflist" "$root/etc/cni/net.d/"
  cp "$ROOT/cluster/node/default-storage.yaml" "$root/kind/manifests/"
  cp "$ROOT/cluster/node/kind-import-images.service" "$root/etc/systemd/system/"
  chroot "$root" systemctl enable kubelet containerd undo-mount-hacks kind-import-images
  chroot "$root" systemctl mask systemd-binfmt.service
}

# The control plane's images, named as kubeadm expects them, as archives that the node imports when it boots.
program_image() { # IMAGE PROGRAM BASE FOLDER [INSTRUCTION...]
  local image=$1 program=$2 base=$3 folder=$4 context=$work/context-$2; shift 4
  mkdir "$context"
  cp "$program_folder/$program" "$context/"
  printf '%s\n' "FROM $base" "COPY $program $folder/" "ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$@" \
    > "$context/Containerfile"
  "$KCR_ENGINE" build -t "$image" -f "$context/Containerfile" "$context"
  "$KCR_ENGINE" save -o "$work/root/kind/images/$program.tar" "$image"
  "$KCR_ENGINE" rmi "$image"
}

control_plane_images() {
  local program program_folder=$1 release=v$KUBERNETES_VERSION
  for program in kube-apiserver kube-controller-manager kube-scheduler; do
    program_image "registry.k8s.io/$program:$release" $program scratch /usr/local/bin
  done
  program_image "$ETCD_IMAGE" etcd scratch /usr/local/bin
  program_image "$COREDNS_IMAGE" coredns scratch /usr/local/bin 'ENTRYPOINT ["/usr/local/bin/coredns"]'
  debian_root bookworm "$work/proxy" iptables,conntrack,kmod
  image_of_root "$work/proxy" localhost/kubecoderun-proxy-base
  program_image "registry.k8s.io/kube-proxy:$release" kube-proxy localhost/kubecoderun-proxy-base /usr/local/bin
  "$KCR_ENGINE" rmi localhost/kubecoderun-proxy-base
  program_folder=$work
  gcc -static -O2 -s -o "$work/pause" "$ROOT/cluster/node/pause.c"
  program_image "$PAUSE_IMAGE" pause scratch "" 'ENTRYPOINT ["/pause"]'
}

build() { # BINARIES
  make_root "$work/root" "$1"
  adapt_root "$work/root"
  control_plane_images "$1"
  image_of_root "$work/root" "$name" 'ENV container=docker' 'STOPSIGNAL SIGRTMIN+3' \
    'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]'
  "$KCR_ENGINE" save -o "$archive.part" "$name"
  mv "$archive.part" "$archive"
}

if ! image_exists "$name"; then
  if [ -f "$archive" ]; then
    quietly "load node image" "$KCR_ENGINE" load -i "$archive" >&2
  else
    "$ROOT/cluster/packages.sh" debootstrap jq gcc go >&2
    # shellcheck disable=SC2086
    binaries=$("$ROOT/cluster/binaries.sh" $programs)
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    quietly "build node image" build "$binaries" >&2
  fi
fi
echo "$name"
