# shellcheck shell=bash
# Sourced: root file systems made of Debian packages, from the mirror this machine itself installs from.

debian_mirror() {
  # Ubuntu's sources name no Debian mirror: debootstrap then uses its default
  grep -q '^ID=debian' /etc/os-release || return 0
  cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null \
    | sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] *\)\?//p' | awk '$1 ~ /debian/ && $1 !~ /security/ {print $1; exit}'
}

# debian_root SUITE FOLDER PACKAGE,PACKAGE...: a minimal Debian, without the caches that only made it.
debian_root() {
  local suite=$1 root=$2 packages=$3
  "$ROOT/cluster/packages.sh" debian-archive-keyring   # without Debian's keys the mirror's answers cannot be verified
  # shellcheck disable=SC2046
  debootstrap --variant=minbase --include="$packages" "$suite" "$root" $(debian_mirror)
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/cache/apt/*.bin "$root"/var/lib/apt/lists/* \
    "$root"/var/log/*.log "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/*
}

# image_of_root FOLDER IMAGE INSTRUCTION...: the container image with that root file system and Containerfile lines.
image_of_root() {
  local root=$1 image=$2 context; shift 2
  context=$(mktemp -d -p "$(dirname "$root")")
  tar -C "$root" --exclude './dev/*' --exclude './proc/*' --exclude './sys/*' --numeric-owner -cf "$context/root.tar" .
  { printf 'FROM scratch\nADD root.tar /\n'; printf '%s\n' "$@"; } > "$context/Containerfile"
  "$KCR_ENGINE" build -t "$image" -f "$context/Containerfile" "$context"
  rm -rf "$context"
}
