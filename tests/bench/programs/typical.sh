printf '{"name": "%s", "value": %d}\n' a 1 b 2 a 3 | jq -s -c 'group_by(.name) | map({(.[0].name): map(.value) | add}) | add'
