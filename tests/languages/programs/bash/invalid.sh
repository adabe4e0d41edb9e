if true; then
  echo "not reached"
