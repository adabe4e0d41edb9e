#!/usr/bin/env bash
# Makes the secrets that are missing in the cluster; changes none but for a key that is missing, and never prints one. usage: secrets.sh
. "$(dirname "$0")/env.sh"
. "$ROOT/cluster/progress.sh"

random_hex() { head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

# secret NAME KEY VALUE...: values go through standard input, where no process list shows them.
secret() {
  local name=$1; shift
  ! kubectl -n "$SYSTEM_NAMESPACE" get secret "$name" -o name >/dev/null 2>&1 || return 0
  {
    printf 'apiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\n  namespace: %s\ndata:\n' "$name" "$SYSTEM_NAMESPACE"
    while (($#)); do
      printf '  %s: %s\n' "$1" "$(printf %s "$2" | base64 -w0)"
      shift 2
    done
  } | kubectl create -f - >/dev/null
  say "secret $name made"
}

secret kubecoderun-signing private.key "$(head -c 32 /dev/urandom | base64 -w0)"
secret kubecoderun-store access-key "kcr$(random_hex 8)" secret-key "$(random_hex 24)"
secret kubecoderun-idempotency secret "$(random_hex 24)"

# The API key of this checkout stays on this machine, in build/api-key; the cluster gets its hash. A cluster that does not know
# the key, or was set up from elsewhere, gets a line more.
keys=$(kubectl -n "$SYSTEM_NAMESPACE" get secret kubecoderun-api-keys --ignore-not-found -o jsonpath='{.data.api-keys}' | base64 -d)
key=${KCR_API_KEY:-$(cat "$BUILD/api-key" 2>/dev/null || true)}
hash_of_key() { printf 'sha256:%s' "$(printf %s "$1" | sha256sum | cut -d' ' -f1)"; }
first=${keys%%[[:space:]]*}
if [ -z "$key" ] && [[ -n $first && $first != sha256:* && $first != "#"* ]]; then key=$first; fi
key=${key:-kcr-$(random_hex 24)}
if [ -z "$keys" ]; then
  secret kubecoderun-api-keys api-keys "$(hash_of_key "$key") label=make-run role=admin"
elif ! grep -qF -e "$key" -e "$(hash_of_key "$key")" <<<"$keys"; then
  lines=$(printf '%s\n%s label=make-run role=admin' "$keys" "$(hash_of_key "$key")" | base64 -w0)
  printf '{"data":{"api-keys":"%s"}}' "$lines" \
    | kubectl -n "$SYSTEM_NAMESPACE" patch secret kubecoderun-api-keys --type merge --patch-file /dev/stdin >/dev/null
  say "secret kubecoderun-api-keys has a line more"
fi
(umask 077; printf '%s' "$key" > "$BUILD/api-key")
