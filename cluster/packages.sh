#!/usr/bin/env bash
# Makes sure that commands exist: names the Debian packages that are missing, and installs them when root on Debian/Ubuntu.
# usage: packages.sh COMMAND...
. "$(dirname "$0")/env.sh"
. "$ROOT/cluster/progress.sh"
. "$ROOT/cluster/registry.sh"

package_of() {
  case $1 in
    podman) echo "podman netavark iptables uidmap" ;;
    gcc) echo "gcc libc6-dev" ;;
    python3) echo "python3 python3-venv" ;;
    venv) echo python3-venv ;;
    go) echo golang-go ;;
    node) echo nodejs ;;
    *) echo "$1" ;;
  esac
}

present() {
  case $1 in
    debian-archive-keyring) [ -f /usr/share/keyrings/debian-archive-keyring.gpg ] ;;
    go) go_works || { [ "$KCR_ENGINE" = docker ] && go_in_container; } ;;
    venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

missing=()
for command in "$@"; do
  # shellcheck disable=SC2207
  present "$command" || missing+=($(package_of "$command"))
done
if ((${#missing[@]})); then
  install="apt-get install -y ${missing[*]}"
  echo "      missing system packages: ${missing[*]}"
  [ "$(id -u)" = 0 ] || fail "run as root (or with sudo): $install"
  command -v apt-get >/dev/null || fail "this machine has no apt-get; install the equivalents of: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  quietly "apt-get update" timeout 300 apt-get update || say "going on with the package lists that are here"
  # shellcheck disable=SC2086
  quietly "apt-get install" timeout 900 $install
fi

if [[ " $* " == *" go "* ]]; then
  present go || fail "$(go version) is too old: install Go 1.25 or newer from https://go.dev/dl"
fi
