#!/usr/bin/env bash
# Runs a program through the front end as a client does, and shows how to do it again. usage: first-call.sh
. "$(dirname "$0")/env.sh"
. "$ROOT/cluster/progress.sh"
. "$BUILD/env"

body='{"lang":"py","code":"import sys; print(sum(range(10)), sys.version)"}'
answer=$(curl -sS -m 60 -w '\n%{http_code} in %{time_total} s' "$KCR_ENDPOINT/v1/exec" \
  -H "X-API-Key: $KCR_API_KEY" -H 'Content-Type: application/json' -d "$body")
cat <<EOF
      $(sed '$d' <<<"$answer")
      HTTP $(tail -n 1 <<<"$answer")

Address: $KCR_ENDPOINT

Run a program:
  curl -s $KCR_ENDPOINT/v1/exec -H 'X-API-Key: $KCR_API_KEY' -H 'Content-Type: application/json' \\
    -d '$body'

LibreChat's .env:
  LIBRECHAT_CODE_BASEURL=$KCR_ENDPOINT/v1
  LIBRECHAT_CODE_API_KEY=$KCR_API_KEY

For kubectl and tests: . build/env

EOF
[[ $answer == *$'\n'200* && $answer == *45* ]] || fail "the first call was not answered as expected"
