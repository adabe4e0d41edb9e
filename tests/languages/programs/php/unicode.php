<?php
$text = "Grüße, 世界 🌍";
echo $text, "\n", mb_strlen($text), "\n";
