#!/bin/sh
# Runs inside an image build: compiles Go's standard library into GOCACHE, and makes the links that every pod starts with.
set -eu
seed=/opt/kubecoderun/seed/.cache/go-build
go build std
# what one program needs beyond packages: the link step's own entries are cheap, the compiled packages are the point
rm -rf "$GOCACHE/trim.txt" "$GOCACHE/README"
find "$GOCACHE" -exec touch -d 2100-01-01 {} +
mkdir -p "$seed"
cp -rs "$GOCACHE/." "$seed/"
chmod -R a+rX /opt/kubecoderun
