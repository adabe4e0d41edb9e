#!/usr/bin/env bash
# Brings the images of build/images into the cluster, makes missing secrets, applies the manifests with these images, and
# waits until everything is ready.
# Writes build/env. usage: deploy.sh
. "$(dirname "$0")/env.sh"
. "$ROOT/cluster/progress.sh"
. "$ROOT/cluster/provider.sh"

OVERLAY=${KCR_OVERLAY:-$ROOT/manifests/overlays/$STORE_OVERLAY}
WAIT_SECONDS=${KCR_WAIT_SECONDS:-240}

apply() { timeout 120 kubectl apply --server-side --force-conflicts --field-manager kubecoderun-dev "$@" >>"$LOGS/apply.log"; }

# The overlay with `localhost/kubecoderun-PART:dev` replaced by the images that were built.
render() {
  local part image replace=()
  while read -r part image; do
    replace+=(-e "s#localhost/kubecoderun-$part:dev#$image#")
  done < "$BUILD/images"
  kubectl kustomize "$OVERLAY" | sed "${replace[@]}" > "$BUILD/manifests.yaml"
}

# One line: what is ready, of how many.
state() {
  kubectl -n "$SYSTEM_NAMESPACE" get deployments -o \
    jsonpath='{range .items[*]}{.metadata.name} {.status.observedGeneration}/{.metadata.generation} {.status.updatedReplicas}/{.spec.replicas} {.status.availableReplicas}/{.status.replicas}{"\n"}{end}' \
    | awk '{
        split($2, seen, "/"); split($3, new, "/"); split($4, up, "/")
        done = seen[1] == seen[2] && new[1] + 0 == new[2] + 0 && up[1] + 0 == new[2] + 0 && up[2] + 0 == new[2] + 0
        sub(/^kubecoderun-/, "", $1); printf "%s %s, ", $1, done ? "ready" : "waiting"}'
  kubectl -n kubecoderun get executionpools -o \
    jsonpath='{range .items[*]}{.metadata.name}|{.metadata.generation}|{.status.observedGeneration}|{.spec.replicas}|{.status.readyReplicas}|{.status.updatedReplicas}{"\n"}{end}' \
    | awk -F '|' '{
        done = $2 == $3 && $5 + 0 >= $4 + 0 && $6 + 0 >= $4 + 0
        printf "pool %s %s (%d of %d pods) ", $1, done ? "ready" : "waiting", $5, $4}'
}

wait_ready() {
  local began=$SECONDS now before=""
  while :; do
    now=$(state) || now="the API server does not answer, waiting"
    if [ "$now" != "$before" ]; then say "$((SECONDS - began)) s: $now"; before=$now; fi
    [[ $now == *waiting* ]] || return 0
    ((SECONDS - began < WAIT_SECONDS)) || { "$ROOT/cluster/diagnose.sh" >&2; fail "not ready after $WAIT_SECONDS s"; }
    sleep 1
  done
}

wait_answering() {
  local tries
  for ((tries = 0; tries < 240; tries++)); do
    # With the key: a front end that runs already may take a minute to see a new one.
    ! curl -fsS -m 2 -o /dev/null -H @- "http://127.0.0.1:$KCR_PORT/files/aaaaaaaaaaaaaaaaaaaaa" 2>/dev/null \
      <<<"X-API-Key: $(cat "$BUILD/api-key")" || return 0
    sleep 0.5
  done
  "$ROOT/cluster/diagnose.sh" >&2
  fail "http://127.0.0.1:$KCR_PORT does not answer"
}

write_env() {
  (
    umask 077
    printf 'export KUBECONFIG=%q\nexport KCR_ENDPOINT=http://127.0.0.1:%s\nexport KCR_API_KEY=%q\n' \
      "${KUBECONFIG:-$HOME/.kube/config}" "$KCR_PORT" "$(cat "$BUILD/api-key")" > "$BUILD/env"
  )
}

: > "$LOGS/apply.log"
echo "$STORE" > "$BUILD/object-store"
echo "$LANGUAGES" > "$BUILD/languages"
mapfile -t images < <(cut -d' ' -f2 "$BUILD/images")
load_images "${images[@]}"
render
apply -f "$ROOT/manifests/base/namespaces.yaml"
apply -k "$ROOT/crds"
kubectl wait --for=condition=Established --timeout=60s -f "$ROOT/crds/executionpools.yaml" -f "$ROOT/crds/executionsessions.yaml" \
  >>"$LOGS/apply.log"
"$ROOT/cluster/secrets.sh"
apply -f "$BUILD/manifests.yaml"
say "$(grep -c '^kind:' "$BUILD/manifests.yaml") objects applied"
wait_ready
expose
wait_answering
write_env
