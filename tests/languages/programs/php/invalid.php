<?php
echo "not reached\n"
if (true) {
