<?php
echo "before the end\n";
exit(7);
