#!/bin/sh
# Runs inside an image build: installs Debian packages, without those that are only recommended, and leaves no caches.
# usage: debian.sh PACKAGE...
set -eu
export DEBIAN_FRONTEND=noninteractive
# some packages register manual pages, and a minimal image has no folder for them
mkdir -p /usr/share/man/man1
apt-get update -q
apt-get install -y -q --no-install-recommends "$@"
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt /usr/share/doc /usr/share/man /usr/share/locale
