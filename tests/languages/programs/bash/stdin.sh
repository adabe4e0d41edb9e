sum=0
while read -r line; do
  sum=$((sum + line))
done
echo "$sum"
