#!/usr/bin/env bash
# The image our own images start from. Prints its name: python:3.13-slim where a registry answers, else a Debian trixie
# (Python 3.13) made of packages. The answer is kept in build/base-image; remove it to ask again.
. "$(dirname "$0")/env.sh"
. "$ROOT/cluster/progress.sh"
. "$ROOT/cluster/debian.sh"
. "$ROOT/cluster/registry.sh"

public=${BASE_IMAGE:-docker.io/library/python:3.13-slim}
key=$(hash_of "$ROOT/cluster/base-image.sh" "$ROOT/cluster/debian.sh" <<<trixie)
name=localhost/kubecoderun-base:$key
archive=$CACHE/base-$key.tar

build() {
  debian_root trixie "$work/root" ca-certificates,python3,python3-pip,python3-venv
  image_of_root "$work/root" "$name" 'ENV LANG=C.UTF-8' 'CMD ["python3"]'
  "$KCR_ENGINE" save -o "$archive.part" "$name"
  mv "$archive.part" "$archive"
}

kept=$(cat "$BUILD/base-image" 2>/dev/null || true)
if [ -z "${BASE_IMAGE:-}" ] && [ -n "$kept" ] && image_exists "$kept"; then
  echo "$kept"
  exit
fi
if pulled "$public"; then
  name=$public
elif ! image_exists "$name"; then
  if [ -f "$archive" ]; then
    quietly "load base image" "$KCR_ENGINE" load -i "$archive" >&2
  else
    "$ROOT/cluster/packages.sh" debootstrap >&2
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    quietly "build base image" build >&2
  fi
fi
echo "$name" | tee "$BUILD/base-image"
