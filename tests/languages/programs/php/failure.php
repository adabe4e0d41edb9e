<?php
function fail(): void
{
    throw new RuntimeException('went wrong on purpose');
}

fail();
