# shellcheck shell=bash
# Sourced: the only file that knows where the cluster is. CLUSTER=kind: a kind cluster in docker or podman (KCR_ENGINE);
# CLUSTER=current: the cluster of the current kubeconfig.
#   create                    makes the cluster, or makes sure that it answers
#   image_name PART HASH      how the cluster names the image of a part
#   load_images IMAGE...      brings images there, those that are missing
#   expose                    makes the front end answer at 127.0.0.1:KCR_PORT
#   destroy                   takes away what create, expose and the deployment made
NODE=$CLUSTER_NAME-control-plane

case $CLUSTER in
  kind)
    kind_answers() { timeout 20 kubectl get --raw /readyz >/dev/null 2>&1; }

    kind_config() { # prints kind.yaml, filled in
      local image bridge=false
      image=$("$ROOT/cluster/node-image.sh")
      [[ $image != localhost/* ]] || bridge=true    # our own node brings no network program
      sed -e "s#@NODE_IMAGE@#$image#; s#@PLAIN_BRIDGE@#$bridge#; s#@FOLDER@#$ROOT/cluster#" \
        -e "s#@NODE_PORT@#$NODE_PORT#; s#@PORT@#$KCR_PORT#" "$ROOT/cluster/kind.yaml"
    }

    create() {
      if kind_answers; then
        say "the cluster $CLUSTER_NAME is running"
        return
      fi
      destroy
      ! (: <"/dev/tcp/127.0.0.1/$KCR_PORT") 2>/dev/null \
        || fail "port $KCR_PORT of this machine is taken; choose another: KCR_PORT=8001 make run"
      mkdir -p /lib/modules 2>/dev/null || true    # kind mounts it; kernels without modules have none
      kind_config > "$BUILD/kind.yaml"
      quietly "kind create cluster" timeout 300 kind create cluster --name "$CLUSTER_NAME" \
        --config "$BUILD/kind.yaml" --kubeconfig "$KUBECONFIG" --wait 120s
    }

    image_name() { echo "localhost/kubecoderun-$1:$2"; }

    load_images() {
      local image archive missing=() there
      there=$("$KCR_ENGINE" exec "$NODE" ctr -n k8s.io images ls -q)
      for image in "$@"; do
        grep -qxF "$image" <<<"$there" || missing+=("$image")
      done
      ((${#missing[@]})) || { say "the cluster has all images"; return; }
      archive=$(mktemp -p "$BUILD" images.XXXXXX.tar)
      save_images "$archive" "${missing[@]}"
      quietly "load ${#missing[@]} images" timeout 300 kind load image-archive "$archive" --name "$CLUSTER_NAME"
      rm -f "$archive"
    }

    save_images() { # ARCHIVE IMAGE...
      local archive=$1; shift
      if [ "$KCR_ENGINE" = docker ]; then
        docker save -o "$archive" "$@"
      else
        podman save -q -m --format docker-archive -o "$archive" "$@"
      fi
    }

    expose() { :; }     # kind forwards the port to the node (kind.yaml)

    destroy() {
      command -v kind >/dev/null || return 0
      timeout 120 kind delete cluster --name "$CLUSTER_NAME" --kubeconfig "$BUILD/kubeconfig" >"$LOGS/kind-delete.log" 2>&1 \
        || { cat "$LOGS/kind-delete.log" >&2; return 1; }
      [ "$KCR_ENGINE" = docker ] || tidy_podman
    }

    # kind leaves its network behind, and podman the mount of its network namespaces; other containers may need both.
    tidy_podman() {
      if podman network exists kind; then podman network rm kind >/dev/null 2>&1 || true; fi
      if [ -z "$(podman ps -aq)" ] && mountpoint -q /run/netns && [ -z "$(ls -A /run/netns)" ]; then umount /run/netns; fi
    }
    ;;

  current)
    create() {
      image_name any tag >/dev/null
      (umask 077; KUBECONFIG=$KCR_USER_KUBECONFIG kubectl config view --minify --flatten > "$KUBECONFIG") \
        || fail "CLUSTER=current: $KCR_USER_KUBECONFIG has no current context"
      timeout 30 kubectl version >/dev/null || fail "CLUSTER=current: the cluster of the current context does not answer"
      say "using the cluster of the context $(kubectl config current-context)"
    }

    image_name() {
      [ -n "${KCR_REGISTRY:-}" ] || fail "CLUSTER=current: set KCR_REGISTRY to a registry that this machine can push to and
       the cluster can pull from, for example KCR_REGISTRY=registry.example.org/kubecoderun"
      echo "$KCR_REGISTRY/kubecoderun-$1:$2"
    }

    load_images() {
      local image pushed=$BUILD/pushed
      for image in "$@"; do
        ! grep -qxF "$image" "$pushed" 2>/dev/null || continue
        quietly "push $image" timeout 600 "$KCR_ENGINE" push "$image"
        echo "$image" >> "$pushed"
      done
    }

    expose() {
      stop_forwarding
      kubectl -n "$SYSTEM_NAMESPACE" port-forward service/kubecoderun-api "$KCR_PORT:8000" >"$LOGS/port-forward.log" 2>&1 &
      echo $! > "$BUILD/port-forward.pid"
    }

    stop_forwarding() {
      local pid
      pid=$(cat "$BUILD/port-forward.pid" 2>/dev/null || true)
      if [ -n "$pid" ] && grep -qa port-forward "/proc/$pid/cmdline" 2>/dev/null; then kill "$pid"; fi
      rm -f "$BUILD/port-forward.pid"
    }

    destroy() {
      stop_forwarding
      [ -f "$BUILD/manifests.yaml" ] || return 0     # nothing was applied from here
      quietly "delete what was applied" timeout 300 kubectl delete --ignore-not-found -f "$BUILD/manifests.yaml"
      rm -f "$BUILD/manifests.yaml"
    }
    ;;

  *) fail "CLUSTER=$CLUSTER: use kind or current" ;;
esac
