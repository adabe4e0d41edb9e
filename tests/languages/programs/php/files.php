<?php
$text = file_get_contents('données.txt');
mkdir('out');
file_put_contents(__DIR__ . '/out/copy.txt', $text . "more\n");
echo "written\n";
