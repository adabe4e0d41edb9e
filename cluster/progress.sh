# shellcheck shell=bash
# Sourced: how the scripts tell what they do. Steps are numbered by the caller (run.sh), the rest are indented lines.

say() { printf '      %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# quietly LABEL COMMAND...: runs it with its output in build/log/LABEL.log, says every 20 s that it still runs and how
# long it took, and shows the end of the log when it fails.
quietly() {
  local label=$1 log began=$SECONDS pid status=0 ticks=0; shift
  log=$LOGS/${label//[^a-zA-Z0-9._-]/-}.log
  "$@" >"$log" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    ticks=$((ticks + 1))
    if ((ticks % 100 == 0)); then say "$label: $((SECONDS - began)) s so far ..."; fi
  done
  wait "$pid" || status=$?
  if ((status)); then
    { echo "error: $label failed (status $status) after $((SECONDS - began)) s; end of $log:"; tail -n 30 "$log"; } >&2
    return "$status"
  fi
  say "$label: done in $((SECONDS - began)) s"
}
