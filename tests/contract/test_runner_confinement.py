"""What programs of the real runner cannot do, asked of the kernel this runs on, one call at a time."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from differential.runner_process import RunnerProcess, why_impossible
from kubecoderun_runner import confine

pytestmark = pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))

MACHINE = confine.MACHINES.get(platform.machine())
LANDLOCK = ctypes.CDLL(None).syscall(444, None, 0, 1)
"""The kernel's version of it."""

CALL = """
import ctypes, errno, json, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    passed = [ctypes.c_long(value) for value in arguments + (0,) * (6 - len(arguments))]
    result = libc.syscall(ctypes.c_long(number), *passed)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "done"
"""


def ask(folder: Path, code: str, **more: Any) -> Any:
    """What a program prints as JSON."""
    with RunnerProcess(folder, preload="", **more) as runner:
        runner.prepare(code.encode())
        outcome = runner.go()
        assert outcome.exit["exitCode"] == 0, outcome
        return json.loads(outcome.stdout)


@pytest.mark.skipif(MACHINE is None, reason="no filter is known for this machine")
@pytest.mark.parametrize("network", ["None", "Restricted", "Unmanaged"])
def test_every_refused_call_is_refused(tmp_path: Path, network: str) -> None:
    """As root, where the kernel itself would not say EPERM: it is the filter that does. Arguments of 0 do
    nothing, should a call pass after all."""
    assert MACHINE is not None
    asked = f"{{name: call(number, -1, -1) for name, number in {dict(MACHINE.refused)}.items()}}"
    found = ask(tmp_path, f"{CALL}\nprint(json.dumps({asked}))", network=network)
    assert found == dict.fromkeys(MACHINE.refused, "EPERM")


@pytest.mark.skipif(MACHINE is None, reason="no filter is known for this machine")
def test_calls_that_do_not_exist(tmp_path: Path) -> None:
    assert MACHINE is not None
    found = ask(
        tmp_path, f"{CALL}\nprint(json.dumps([call(n) for n in {[*MACHINE.io_uring, MACHINE.clone3]}]))"
    )
    assert found == ["ENOSYS"] * 4


def test_no_namespace_of_any_kind_and_processes_all_the_same(tmp_path: Path) -> None:
    code = f"""{CALL}
flags = {{"NEWUSER": 0x10000000, "NEWNS": 0x20000, "NEWNET": 0x40000000, "NEWPID": 0x20000000,
          "NEWIPC": 0x08000000, "NEWUTS": 0x04000000, "NEWCGROUP": 0x02000000}}
found = {{name: call({MACHINE.clone if MACHINE else 0}, flag | 17) for name, flag in flags.items()}}
import subprocess, threading, multiprocessing
thread = threading.Thread(target=lambda: found.update(thread="runs"))
thread.start(); thread.join()
found["child"] = subprocess.run(["true"]).returncode
with multiprocessing.get_context("fork").Pool(2) as pool:
    found["pool"] = pool.map(abs, [-1, -2])
print(json.dumps(found))
"""
    found = ask(tmp_path, code)
    assert (found.pop("thread"), found.pop("child"), found.pop("pool")) == ("runs", 0, [1, 2])
    assert set(found.values()) == {"EPERM"}


SOCKETS = """
import errno, json, socket
made = []
for family in range(46):
    for kind in (1, 2, 3, 5):
        try:
            socket.socket(family, kind).close()
            made.append(family)
        except OSError as error:
            if error.errno == errno.EAFNOSUPPORT: continue
            made.append(f"{family}/{kind} {errno.errorcode[error.errno]}")
print(json.dumps(sorted({str(entry).split("/")[0] for entry in made}, key=int)))
"""


@pytest.mark.parametrize(("network", "families"), [("None", ["1"]), ("Restricted", ["1", "2", "10", "16"])])
def test_sockets_by_network(tmp_path: Path, network: str, families: list[str]) -> None:
    assert ask(tmp_path, SOCKETS, network=network) == families


def test_restricted_programs_serve_and_call_on_localhost(tmp_path: Path) -> None:
    code = """
import http.server, json, threading, urllib.request
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"here")
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(json.dumps(opener.open(url).read().decode()))
"""
    assert ask(tmp_path, code, network="Restricted") == "here"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="int 0x80 is of x86")
@pytest.mark.parametrize(
    ("what", "instructions"),
    [
        ("a 32-bit call", "b8 66 00 00 00 cd 80 c3"),  # mov eax, 102 (socketcall); int 0x80; ret
        ("an x32 call", "b8 29 00 00 40 0f 05 c3"),  # mov eax, 0x40000000 | 41 (socket); syscall; ret
    ],
)
def test_other_system_call_tables_kill(tmp_path: Path, what: str, instructions: str) -> None:
    code = f"""
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex({instructions!r}))
print("before", flush=True)
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
print("after")
"""
    with RunnerProcess(tmp_path, preload="") as runner:
        runner.prepare(code.encode())
        outcome = runner.go()
        assert (outcome.stdout, outcome.exit["signal"]) == (b"before\n", "SIGSYS"), what
        runner.prepare(b"print('the next one')")
        assert runner.go().stdout == b"the next one\n"


ATTACKS = """
import ctypes, errno, json, os, struct
libc = ctypes.CDLL(None, use_errno=True)
found = {}
def attack(name, action):
    ctypes.set_errno(0)
    try:
        result = action()
    except OSError as error:
        found[name] = errno.errorcode[error.errno]
    else:
        found[name] = errno.errorcode.get(ctypes.get_errno(), "done") if result == -1 else "done"
def word(pid):
    buffer = ctypes.create_string_buffer(8)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    remote = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    return local, remote
local, remote = word(1)
attack("ptrace", lambda: libc.ptrace(16, 1, 0, 0))
attack("seize", lambda: libc.ptrace(0x4206, 1, 0, 0))
attack("vm_readv", lambda: libc.process_vm_readv(1, local, 1, remote, 1, 0))
attack("vm_writev", lambda: libc.process_vm_writev(1, local, 1, remote, 1, 0))
for name in ("mem", "environ", "maps", "fd", "cwd", "root", "exe"):
    def look(name=name):
        path = f"/proc/1/{name}"
        return os.listdir(path) if name == "fd" else os.readlink(path) if name in ("cwd", "root", "exe") \\
            else len(open(path, "rb").read(8))
    attack(name, look)
attack("write_mem", lambda: os.open("/proc/1/mem", os.O_RDWR))
attack("oom_score_adj", lambda: os.open("/proc/1/oom_score_adj", os.O_WRONLY))
attack("pidfd_getfd", lambda: libc.syscall(438, os.pidfd_open(1), 0, 0))
attack("prlimit", lambda: libc.prlimit(1, 7, struct.pack("QQ", 3, 3), 0))
attack("affinity", lambda: os.sched_setaffinity(1, {0}))
attack("scheduler", lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)))
print(json.dumps(found))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
@pytest.mark.skipif(
    not os.access("/usr/bin/python3", os.X_OK), reason="needs a Python that all users can run"
)
def test_the_runner_cannot_be_read_or_changed_by_its_programs(tmp_path: Path) -> None:
    """Under the uid of the runner, as in a pod."""
    with tempfile.TemporaryDirectory(prefix="kcr-") as folder:
        found = ask(Path(folder), ATTACKS, uid=54_321)
    assert set(found.values()) <= {"EPERM", "EACCES"}, found
    assert len(found) == 17


@pytest.mark.skipif(LANDLOCK < 1, reason="this kernel has no Landlock")
def test_programs_write_where_they_work_and_nowhere_else(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """As root, to whom no permissions apply: it is Landlock that refuses."""
    outside = Path(tempfile.mkdtemp(prefix="kcr-", dir="/var/tmp"))
    request.addfinalizer(lambda: shutil.rmtree(outside))
    (outside / "file").write_text("as it was")
    code = f"""
import errno, json, os, socket
found = {{}}
def tried(name, action):
    try:
        action()
        found[name] = "done"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]
outside = {str(outside)!r}
tried("new", lambda: open(outside + "/new", "w"))
tried("change", lambda: open(outside + "/file", "w"))
tried("truncate", lambda: os.truncate(outside + "/file", 0))
tried("remove", lambda: os.remove(outside + "/file"))
tried("folder", lambda: os.mkdir(outside + "/folder"))
tried("rename", lambda: os.rename(outside + "/file", outside + "/other"))
tried("link", lambda: os.link(outside + "/file", "mine"))
tried("symlink", lambda: os.symlink("x", outside + "/symlink"))
tried("socket", lambda: socket.socket(socket.AF_UNIX).bind(outside + "/socket"))
tried("fifo", lambda: os.mkfifo(outside + "/fifo"))
tried("device", lambda: os.mknod("device", 0o020600, os.makedev(1, 3)))
print(json.dumps(found))
"""
    refused = ask(tmp_path, code)
    assert len(refused) == 11
    assert {name: said for name, said in refused.items() if said not in ("EACCES", "EXDEV")} == {}
    assert refused.pop("device") == "EACCES"
    assert (outside / "file").read_text() == "as it was"
    assert [path.name for path in outside.iterdir()] == ["file"]


def test_what_programs_do_every_day_works(tmp_path: Path) -> None:
    code = """
import json, os, socket, subprocess, tempfile
open("/dev/null", "w").write("x")
print("", end="", file=open("/dev/stdout", "a"))
with tempfile.NamedTemporaryFile() as file: file.write(b"x")
with open("a", "w") as file: file.write("x")
os.makedirs("b/c"); os.rename("a", "b/c/a"); os.link("b/c/a", "b/a"); os.symlink("b/a", "l")
os.truncate("b/a", 0); os.mkfifo("f")
socket.socket(socket.AF_UNIX).bind("s")
open("script.sh", "w").write("#!/bin/sh\\necho ran"); os.chmod("script.sh", 0o755)
fd = os.memfd_create("m"); os.write(fd, b"in memory")
print(json.dumps([subprocess.run("./script.sh", capture_output=True, text=True).stdout,
                  open(f"/proc/self/fd/{fd}").read(), open("/proc/self/comm", "w").write("renamed")]))
"""
    assert ask(tmp_path, code) == ["ran\n", "in memory", 7]
