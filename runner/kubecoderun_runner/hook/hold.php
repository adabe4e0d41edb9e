<?php
// Holds a PHP up before it reads its program, whose file it has opened (held.py).
(static function (): void {
    $report = fopen('php://fd/4', 'w');
    fwrite($report, "\0");
    fclose($report);
    $orders = fopen('php://fd/3', 'r');
    $message = stream_get_contents($orders);
    fclose($orders);
    if ($message === '') {
        exit(0);
    }
    $argv = array_slice(explode("\0", $message), 0, -1);
    $GLOBALS['argv'] = $_SERVER['argv'] = $argv;
    $GLOBALS['argc'] = $_SERVER['argc'] = count($argv);
    $_SERVER['REQUEST_TIME_FLOAT'] = microtime(true);
    $_SERVER['REQUEST_TIME'] = time();
})();
