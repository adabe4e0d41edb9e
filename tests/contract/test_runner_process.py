"""The real runner as PID 1, over its real socket: limits, ends, output, hostile programs, broken peers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from differential.runner_process import RunnerProcess, why_impossible

pytestmark = pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    with RunnerProcess(tmp_path, preload="json") as process:
        yield process


def test_hello_says_what_it_can_do(runner: RunnerProcess) -> None:
    assert runner.hello["protocol"] == 1
    assert "py" in runner.hello["languages"]
    assert runner.hello["features"] == ["again"]


def test_a_missing_module_is_reported_and_the_rest_is_loaded(tmp_path: Path) -> None:
    with RunnerProcess(tmp_path, preload="no_such_module,json") as runner:
        assert runner.warm["preloaded"] == ["json"]
        (failure,) = runner.warm["failed"]
        assert failure == "no_such_module: ModuleNotFoundError: No module named 'no_such_module'"


def test_the_time_limit_ends_everything_and_keeps_the_output(runner: RunnerProcess) -> None:
    """A grandchild in a session of its own holds the output pipe: ending the main process is not enough."""
    code = b"""
import subprocess, sys, time
grandchild = "import time; print(9, flush=True); time.sleep(99)"
child = f"import subprocess as s, sys; s.Popen([sys.executable, '-c', {grandchild!r}], start_new_session=1)"
subprocess.run([sys.executable, "-c", child], start_new_session=True)
time.sleep(0.3)
print("so far", flush=True)
time.sleep(99)
"""
    runner.prepare(code, seconds=2.0)
    outcome = runner.go()
    assert outcome.exit["timedOut"] is True
    assert outcome.exit["signal"] == "SIGKILL"
    assert b"so far" in outcome.stdout
    runner.prepare(b"import os; print([p for p in os.listdir('/proc') if p.isdigit()])")
    alone = runner.go().stdout
    assert alone.count(b"'") == 4, alone  # PID 1 and the program itself


def test_background_processes_end_with_the_program(runner: RunnerProcess) -> None:
    runner.prepare(b"import subprocess; subprocess.Popen(['sleep', '99']); print('done')")
    outcome = runner.go()
    assert outcome.stdout == b"done\n"
    assert outcome.exit["exitCode"] == 0
    assert not outcome.exit["timedOut"]


def test_cancel_ends_a_program(runner: RunnerProcess) -> None:
    runner.prepare(b"import time; print('started', flush=True); time.sleep(99)")
    outcome = runner.go(cancel_after_output=True)
    assert outcome.exit["cancelled"] is True
    assert outcome.stdout == b"started\n"


def test_much_output_arrives_whole(runner: RunnerProcess) -> None:
    runner.prepare(
        b"import sys\nfor _ in range(200): sys.stdout.write('x' * 1000000)\nsys.stderr.write('end')"
    )
    outcome = runner.go(keep=10)
    assert outcome.output_bytes == 200_000_003
    assert outcome.stderr == b"end"


def test_the_time_limit_holds_while_nobody_reads(runner: RunnerProcess) -> None:
    runner.prepare(b"import sys\nwhile True: sys.stdout.write('x' * 1000000)", seconds=1.0)
    runner.send("G")
    time.sleep(2.5)  # the runner's queue is full; time goes on
    runner.expect("S")
    total = 0
    while True:
        kind, payload = runner.receive()
        if kind == "X":
            break
        total += len(payload)
    assert b'"timedOut":true' in payload
    # what fits in queue, socket and pipe, not what a program can write in two seconds
    assert total < 16 << 20


@pytest.mark.parametrize(
    ("code", "exit_code", "signal_name"),
    [
        (
            b"import os, signal\ntry: os.kill(-1, 9)\nfinally: print('alive', flush=True); os._exit(0)",
            0,
            None,
        ),
        (
            b"import os, signal\nos.kill(1, signal.SIGKILL); os.kill(1, signal.SIGSTOP); print('alive')",
            0,
            None,
        ),
        (
            b"import os, signal\nos.kill(1, signal.SIGTERM); import time; time.sleep(0.3); print('alive')",
            0,
            None,
        ),
        (
            b"import os, signal\nos.kill(1, signal.SIGINT); os.kill(1, signal.SIGCHLD); print('alive')",
            0,
            None,
        ),
        (b"import os\nprint('alive', flush=True); os.close(0); os.close(1); os.close(2)", 0, None),
        (
            b"import os, signal\nprint('alive', flush=True); os.kill(os.getpid(), signal.SIGKILL)",
            None,
            "SIGKILL",
        ),
        (b"import os, signal\nprint('alive', flush=True); os.kill(os.getpid(), 40)", None, "SIGRTMIN+6"),
    ],
)
def test_pid_1_outlives_what_programs_do_to_it(
    runner: RunnerProcess, code: bytes, exit_code: int | None, signal_name: str | None
) -> None:
    runner.prepare(code)
    outcome = runner.go()
    assert outcome.stdout == b"alive\n"
    assert (outcome.exit["exitCode"], outcome.exit["signal"]) == (exit_code, signal_name)
    assert not outcome.exit["oom"]


def test_sockets_of_every_family_are_refused(runner: RunnerProcess) -> None:
    code = b"""
import errno, socket, ctypes
for family in range(46):
    if family == socket.AF_UNIX: continue
    for kind in (1, 2, 3, 5):
        try:
            socket.socket(family, kind)
            print("made", family, kind)
        except OSError as error:
            assert error.errno == errno.EAFNOSUPPORT, (family, error)
a, b = socket.socketpair(); a.send(b"unix works"); print(b.recv(99))
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(425, 8, 0), ctypes.get_errno() == errno.ENOSYS)
"""
    runner.prepare(code)
    outcome = runner.go()
    assert outcome.stdout == b"b'unix works'\n-1 True\n", outcome


def test_a_network_that_is_not_managed_allows_sockets(tmp_path: Path) -> None:
    with RunnerProcess(tmp_path, preload="", network="Unmanaged") as runner:
        runner.prepare(
            b"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(); print('made')"
        )
        assert runner.go().stdout == b"made\n"


def test_programs_see_nothing_of_ours(runner: RunnerProcess) -> None:
    runner.prepare(
        b"import os\nprint([k for k in os.environ if 'KCR' in k or 'PYTHONPATH' in k], os.listdir('.'))"
    )
    assert runner.go().stdout == b"[] ['main.py']\n"


def test_environment_and_standard_input_arrive(runner: RunnerProcess) -> None:
    runner.prepare(b"import os\nprint(os.environ['A'], input())", env={"A": "b c"}, stdin="ü\n".encode())
    assert runner.go().stdout == "b c ü\n".encode()


def test_runs_one_after_the_other(runner: RunnerProcess) -> None:
    for number in range(3):
        runner.prepare(f"print({number})".encode())
        assert runner.go().stdout == f"{number}\n".encode()


def test_a_taken_name_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("mine")
    with RunnerProcess(tmp_path, preload="json") as runner:
        runner.prepare(b"print(open('main.py').read(), __file__)")
        assert runner.go().stdout.decode().startswith("mine ")
    assert (tmp_path / "main.py").read_text() == "mine"


def test_large_code_arrives(runner: RunnerProcess) -> None:
    code = b"data = '" + b"y" * 3_000_000 + b"'\nprint(len(data))"
    runner.prepare(code)
    assert runner.go().stdout == b"3000000\n"


def test_usage_is_the_programs_own(tmp_path: Path) -> None:
    """The spare's own loading is not counted."""
    with RunnerProcess(tmp_path) as runner:
        runner.prepare(b"print(1)")
        idle = runner.go().exit["cpuSeconds"]
        runner.prepare(b"import time\nwhile time.process_time() < 1.0: pass")
        busy = runner.go().exit
    assert idle < 0.5 < busy["cpuSeconds"] <= busy["wallSeconds"] + 0.5
    assert busy["maxRssBytes"] > 1 << 20


@pytest.mark.parametrize(
    "frame",
    [
        b"G\0\0\0\x02{}",
        b"C\0\0\0\x01x",
        b"Z\0\0\0\x02{}",
        b"R\0\0\0\x02[]",
        b"R\xff\xff\xff\xff",
        b'R\0\0\0\x0f{"language": 1}',
    ],
    ids=repr,
)
def test_a_peer_that_breaks_the_protocol_ends_the_runner(runner: RunnerProcess, frame: bytes) -> None:
    runner.sock.sendall(frame)
    kind, _ = runner.receive()
    assert kind == "F"
    with pytest.raises(ConnectionError):
        runner.receive()
    assert runner.process.wait(10) != 0


def test_sigterm_from_outside_ends_everything_at_once(runner: RunnerProcess) -> None:
    """The kubelet's; what programs send to PID 1 counts for nothing (above)."""
    runner.prepare(b"import time; time.sleep(99)")
    runner.send("G")
    runner.expect("S")
    children = Path(f"/proc/{runner.process.pid}/task/{runner.process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)
    assert runner.process.wait(10) == 0


def test_a_dropped_spare_is_not_part_of_the_programs_usage(tmp_path: Path) -> None:
    with RunnerProcess(tmp_path) as runner:
        runner.prepare(b"print(1)", env={"A": "needs a plain start"})
        usage = runner.go().exit
    assert usage["maxRssBytes"] < 60 << 20  # the spare has over 90 MiB


@pytest.mark.parametrize("env", [{}, {"A": "makes the spare useless"}], ids=["used", "dropped"])
def test_nothing_is_left_of_a_spare_and_its_shadow(runner: RunnerProcess, env: dict[str, str]) -> None:
    listing = b"import os; print(sorted(p for p in os.listdir('/proc') if p.isdigit()))"
    runner.prepare(listing, env=env)
    first = runner.go().stdout.decode().count("'") // 2
    assert first == (2 if env else 3)  # PID 1, the program, and the shadow of a spare
    runner.prepare(listing)
    assert runner.go().stdout.decode().count("'") // 2 == 2


def test_usage_counts_children_that_nobody_waited_for(runner: RunnerProcess) -> None:
    spin = "import time\nwhile time.process_time() < 1: pass"
    runner.prepare(
        f"import subprocess, time; child = subprocess.Popen(['python', '-c', {spin!r}])\n"
        "def state(): return open(f'/proc/{child.pid}/stat').read().rpartition(')')[2].split()[0]\n"
        "while state() != 'Z': time.sleep(0.05)".encode()
    )
    assert runner.go().exit["cpuSeconds"] > 0.9


def test_a_second_run_after_one_that_was_cut_off_while_nobody_read(runner: RunnerProcess) -> None:
    runner.prepare(b"import sys\nwhile True: sys.stdout.write('x' * 1000000)", seconds=1.0)
    runner.send("G")
    time.sleep(7.5)  # over the limit, and over the time in which output is still collected
    runner.expect("S")
    while runner.receive()[0] != "X":
        pass
    runner.prepare(b"print('fine')")
    assert runner.go().stdout == b"fine\n"


def test_the_runner_ends_when_the_sidecar_is_gone(runner: RunnerProcess) -> None:
    runner.prepare(b"import time; time.sleep(99)")
    runner.send("G")
    runner.expect("S")
    runner.sock.close()
    assert runner.process.wait(10) != 0


def test_not_as_any_other_process() -> None:
    """kill(-1) outside a PID namespace of its own would end everything of this user."""
    from kubecoderun_runner.program import kill_everything

    with pytest.raises(RuntimeError, match="PID 1"):
        kill_everything()


def test_a_program_that_prints_without_end_is_ended(runner: RunnerProcess) -> None:
    runner.prepare(b"import sys\nwhile True: sys.stdout.write('x' * 100000)", output_bytes=3_000_000)
    outcome = runner.go(keep=10)
    assert (outcome.exit["limit"], outcome.exit["signal"]) == ("output", "SIGKILL")
    # what was in the pipe is still passed on
    assert 3_000_000 < outcome.output_bytes < 6_000_000


def test_open_files_have_a_limit(tmp_path: Path) -> None:
    with RunnerProcess(tmp_path, preload="", env={"KCR_OPEN_FILES": "64"}) as runner:
        assert runner.warm["limits"]["openFiles"] == 64
        runner.prepare(b"import os\nkept = []\nwhile True: kept.append(open(os.devnull))")
        outcome = runner.go()
        assert outcome.exit["exitCode"] == 1
        assert b"[Errno 24] Too many open files" in outcome.stderr


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """The words may be missing: a program can say nothing about what went wrong."""
    with RunnerProcess(tmp_path, preload="", scratch="2m") as runner:
        runner.prepare(b"open('big', 'wb').write(bytes(1 << 20)); print('fits')")
        assert runner.go().exit["limit"] is None
        runner.prepare(
            b"try: open('b', 'wb', buffering=0).write(bytes(4 << 20))\nfinally: import os; os._exit(9)"
        )
        outcome = runner.go()
        assert (outcome.exit["exitCode"], outcome.exit["limit"]) == (9, "disk")
