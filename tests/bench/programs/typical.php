<?php
$rows = json_decode('[{"name":"a","value":1},{"name":"b","value":2},{"name":"a","value":3}]', true);
$sums = [];
foreach ($rows as $row) {
    $sums[$row['name']] = ($sums[$row['name']] ?? 0) + $row['value'];
}
echo json_encode($sums), "\n";
