#!/usr/bin/env bash
# Builds our images whose inputs changed (deploy.sh brings them into the cluster). An image's tag is a hash of its inputs, so
# what is built is never stale and pods roll exactly when their image changed. `:dev` names the newest.
# Writes build/images: one line `PART IMAGE` each. usage: images.sh [PART...]
. "$(dirname "$0")/env.sh"
. "$ROOT/cluster/progress.sh"
. "$ROOT/cluster/provider.sh"
. "$ROOT/cluster/registry.sh"

# Files an image is made of, apart from its Containerfile.
inputs_of() {
  local pinned="$ROOT/pyproject.toml $ROOT/constraints.txt $ROOT/images/install.sh"
  case $1 in
    operator) echo "$pinned $ROOT/images/requirements.py $ROOT/crds/kubecoderun_crds $ROOT/operator $ROOT/sidecar" ;;
    api) echo "$pinned $ROOT/images/requirements.py $ROOT/crds/kubecoderun_crds $ROOT/api" ;;
    sidecar) echo "$pinned $ROOT/images/requirements.py $ROOT/sidecar" ;;
    python) echo "$ROOT/images/debian.sh $ROOT/images/install.sh $ROOT/images/python.packages $ROOT/images/python.constraints" \
      "$ROOT/images/matplotlibrc $ROOT/images/runner $ROOT/runner" ;;
    nodejs) echo "$ROOT/images/nodejs.constraints $ROOT/images/install.sh $ROOT/images/runner $ROOT/runner" ;;
    native) echo "$ROOT/images/debian.sh $ROOT/images/native $ROOT/images/runner $ROOT/runner" ;;
    jvm | php | r) echo "$ROOT/images/debian.sh $ROOT/images/runner $ROOT/runner" ;;
    store | minio) echo "$ROOT/cluster/binaries.sh" ;;
  esac
}

# The program of binaries.sh that is all there is in the image; nothing for the others.
program_of() {
  case $1 in
    store) echo versitygw ;;
    minio) echo minio ;;
  esac
}

# Where pip inside a build finds packages: what this machine's pip uses. Files, as secrets: nothing stays in an image.
SECRETS=()
prepare_secrets() {
  local ca=/etc/ssl/certs/ca-certificates.crt key variable value
  [ ! -f "$ca" ] || SECRETS+=(--secret "id=ca,src=$ca")
  (umask 077; echo '[global]' > "$BUILD/pip.conf")
  for key in index-url extra-index-url trusted-host timeout; do
    variable=PIP_$(tr a-z- A-Z_ <<<"$key")
    value=${!variable:-$(python3 -m pip config get "global.$key" 2>/dev/null || true)}
    [ -z "$value" ] || printf '%s = %s\n' "$key" "${value//$'\n'/ }" >> "$BUILD/pip.conf"
  done
  SECRETS+=(--secret "id=pip,src=$BUILD/pip.conf")
}

build_part() { # PART IMAGE BASE
  local context=$ROOT options=(--build-arg "BASE_IMAGE=$3" "${SECRETS[@]}")
  local program
  program=$(program_of "$1")
  if [ -n "$program" ]; then
    context=$BUILD/store
    options=()
    rm -rf "$context"
    mkdir -p "$context"
    cp "$binaries/$program" "$context/"
  fi
  "$KCR_ENGINE" build --network host "${options[@]}" -f "$ROOT/images/$1.Containerfile" -t "$2" \
    -t "localhost/kubecoderun-$1:dev" "$context"
}

# Earlier builds of a part only take up disk.
remove_older() { # PART IMAGE
  local older
  older=$("$KCR_ENGINE" images --format '{{.Repository}}:{{.Tag}}' --filter "reference=${2%:*}" \
    | grep -vxF -e "$2" -e "localhost/kubecoderun-$1:dev" || true)
  # one that a container still uses stays
  [ -z "$older" ] || xargs "$KCR_ENGINE" rmi <<<"$older" >>"$LOGS/rmi.log" 2>&1 || true
}

base=$("$ROOT/cluster/base-image.sh")
base_id=$("$KCR_ENGINE" image inspect -f '{{.Id}}' "$base")
parts=${*:-$PARTS}
# what another STORE left there is not loaded
(($#)) || : > "$BUILD/images"
prepare_secrets
for part in $parts; do
  read -ra files <<<"$(inputs_of "$part")"
  version=$VERSITYGW_VERSION
  [ "$part" != minio ] || version=$MINIO_VERSION
  hash=$(hash_of "$ROOT/images/$part.Containerfile" "${files[@]}" <<<"$base_id $version")
  image=$(image_name "$part" "$hash")
  if ! image_exists "$image"; then
    program=$(program_of "$part")
    if [ -n "$program" ]; then
      "$ROOT/cluster/packages.sh" go
      binaries=$("$ROOT/cluster/binaries.sh" "$program")
    fi
    quietly "build $part image" build_part "$part" "$image" "$base"
    remove_older "$part" "$image"
  else
    say "$part: unchanged"
  fi
  touch "$BUILD/images"
  sed -i "/^$part /d" "$BUILD/images"
  echo "$part $image" >> "$BUILD/images"
done
