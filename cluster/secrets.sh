#!/usr/bin/env bash
# Makes the secrets that are missing in the cluster; never changes one and never prints one. usage: secrets.sh
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
secret kubecoderun-relay relay.key "$(random_hex 24)"
secret kubecoderun-store access-key "kcr$(random_hex 8)" secret-key "$(random_hex 24)"
secret kubecoderun-api-keys api-keys "kcr-$(random_hex 24)"
