mkdir out
{ cat données.txt; echo more; } > out/copy.txt
echo written
