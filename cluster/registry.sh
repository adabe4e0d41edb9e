# shellcheck shell=bash
# Sourced: public images, where a registry answers; and with them Go, where it is not installed.

image_exists() { "$KCR_ENGINE" image inspect "$1" >/dev/null 2>&1; }

# pulled IMAGE: true once the image is here. Asks the registry for 15 s at most, then gives the download its time.
pulled() {
  image_exists "$1" && return
  timeout 15 "$KCR_ENGINE" manifest inspect "$1" >/dev/null 2>&1 || return 1
  quietly "pull $1" timeout 900 "$KCR_ENGINE" pull "$1" >&2
}

# from 1.21 on Go fetches the newer toolchain that a module asks for
go_works() { printf '1.21\n%s\n' "$(go env GOVERSION 2>/dev/null | sed 's/^go//')" | sort -VC; }

# The image that builds Go programs where no usable Go is installed.
GO_IMAGE=${GO_IMAGE:-docker.io/library/golang:1.26}
go_in_container() { pulled "$GO_IMAGE"; }
