# Signals, traces, reads and changes process 1, and takes its files and its processor away.
import ctypes
import errno
import os
import signal
import struct
import time

libc = ctypes.CDLL(None, use_errno=True)
found = {}


def attack(name, action):
    ctypes.set_errno(0)
    try:
        result = action()
        found[name] = errno.errorcode.get(ctypes.get_errno(), "done") if result == -1 else "done"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]


buffer = ctypes.create_string_buffer(8)
vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
attack("attach", lambda: libc.ptrace(16, 1, 0, 0))
attack("seize", lambda: libc.ptrace(0x4206, 1, 0, 0))
attack("readv", lambda: libc.process_vm_readv(1, vector, 1, vector, 1, 0))
attack("writev", lambda: libc.process_vm_writev(1, vector, 1, vector, 1, 0))
attack("mem", lambda: os.open("/proc/1/mem", os.O_RDWR))
attack("environ", lambda: open("/proc/1/environ", "rb").read())
attack("fd", lambda: os.listdir("/proc/1/fd"))
attack("root", lambda: os.listdir("/proc/1/root"))
attack("pidfd_getfd", lambda: libc.syscall(438, os.pidfd_open(1), 3, 0))
attack("prlimit", lambda: libc.prlimit(1, 7, struct.pack("QQ", 3, 3), 0))
attack("affinity", lambda: os.sched_setaffinity(1, {0}))
attack("scheduler", lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)))
print(sorted(set(found.values())), len(found))
for number in set(signal.Signals):
    os.kill(1, number)
time.sleep(0.3)
print("still there")
