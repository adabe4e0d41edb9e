import signal
for s in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD, signal.SIGXFSZ, signal.SIGHUP):
    print(s, signal.getsignal(s))
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
