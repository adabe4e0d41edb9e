set -e
fail() {
  echo "went wrong on purpose" >&2
  false
}
fail
