"""Files through the real sidecar and the real runner: store, pod, program, and back."""

import asyncio
import hashlib
import os
import time
from pathlib import Path

import pytest

from contract.fakes_sidecar.client import Answer, Client, job, start
from contract.fakes_sidecar.pair import WHY_IMPOSSIBLE, pod
from contract.fakes_sidecar.store import FakeStore, fake_store
from kubecoderun_sidecar.protocol import FormTarget, InputFile, OutputTarget, RunResult

pytestmark = pytest.mark.skipif(WHY_IMPOSSIBLE is not None, reason=str(WHY_IMPOSSIBLE))


async def prepare(client: Client, code: str, inputs: list[InputFile] = (), **more: object) -> Answer:  # type: ignore[assignment]
    body = job(code, inputs=tuple(inputs), **{"files": 64, **more})  # type: ignore[arg-type]
    return await client.request("POST", "/v1/prepare", body)


async def run(
    store: FakeStore,
    client: Client,
    code: str,
    inputs: list[InputFile] = (),
    **more: object,  # type: ignore[assignment]
) -> RunResult:
    answer = await prepare(client, code, inputs, **more)
    assert answer.status == 200, answer
    outputs = OutputTarget("p" * 13, FormTarget(store.url("bucket"), "k/", {"policy": "x"}))
    return await client.result(start(outputs=outputs))


def put(store: FakeStore, **files: bytes) -> list[InputFile]:
    for name, data in files.items():
        store.objects[name] = data
    return [InputFile(f"in/{name}.txt", store.url(name), len(data)) for name, data in files.items()]


def came_back(store: FakeStore, result: RunResult) -> dict[str, bytes]:
    return {file.path: store.forms[f"k/{file.id}"].file for file in result.files}


def skipped(result: RunResult) -> dict[str, str]:
    return {one.path: one.reason for one in result.skipped}


async def test_in_and_out(tmp_path: Path) -> None:
    code = """
import os
text = open("in/a.txt").read()
open("in/b.txt", "a").write("!")
os.makedirs("out/deep")
open("out/deep/ünï ☃.txt", "w").write(text * 2)
open("empty", "w")
os.symlink("/etc/passwd", "link")
print(sorted(os.listdir("in")), os.path.basename(__file__))
"""
    async with fake_store() as store, pod(tmp_path) as (_sidecar, client, _runner):
        result = await run(store, client, code, put(store, a=b"hello", b=b"bye", c=b""))
        assert result.stdout.text == "['a.txt', 'b.txt', 'c.txt'] main.py\n", result
        assert came_back(store, result) == {
            "empty": b"",
            "in/b.txt": b"bye!",
            "out/deep/ünï ☃.txt": b"hellohello",
        }
        assert {file.path for file in result.files if file.replaces} == {"in/b.txt"}
        assert (result.skipped, result.skipped_count, result.detail) == ((), 0, None)


async def test_inputs_that_the_program_removed(tmp_path: Path) -> None:
    code = "import os; os.remove('in/a.txt'); os.rename('in/b.txt', 'c.txt')"
    async with fake_store() as store, pod(tmp_path) as (_sidecar, client, _runner):
        result = await run(store, client, code, put(store, a=b"1", b=b"2", d=b"3"))
        assert result.deleted == ("in/a.txt", "in/b.txt")
        assert came_back(store, result) == {"c.txt": b"2"}


async def test_an_input_may_be_called_like_the_source(tmp_path: Path) -> None:
    async with fake_store() as store, pod(tmp_path) as (_sidecar, client, _runner):
        store.objects["x"] = b"mine"
        code = "print(open('main.py').read(), __file__[-9:]); open('main.py', 'a').write('!')"
        result = await run(store, client, code, [InputFile("main.py", store.url("x"), 4)])
        assert result.stdout.text == "mine main-1.py\n"
        assert came_back(store, result) == {"main.py": b"mine!"}


async def test_read_only_inputs(tmp_path: Path) -> None:
    code = "import os; print(oct(os.stat('a').st_mode)); os.chmod('a', 0o644); open('a', 'w').write('x')"
    async with fake_store() as store, pod(tmp_path) as (_sidecar, client, _runner):
        store.objects["a"] = b"1"
        result = await run(store, client, code, [InputFile("a", store.url("a"), 1, read_only=True)])
        assert (result.stdout.text, result.files) == ("0o100444\n", ())


async def test_256_inputs_and_as_many_outputs(tmp_path: Path) -> None:
    code = "import os\nfor n in os.listdir('in'): open(n, 'wb').write(open('in/' + n, 'rb').read()[::-1])"
    async with fake_store() as store, pod(tmp_path) as (_sidecar, client, _runner):
        files = {f"f{n}": bytes([n]) * (n * 37) + b"e" for n in range(256)}
        result = await run(store, client, code, put(store, **files), files=256)
        assert came_back(store, result) == {f"{name}.txt": data[::-1] for name, data in files.items()}


@pytest.mark.parametrize("size", [1, 45_000_000])
async def test_a_file_of_any_size_goes_both_ways(tmp_path: Path, size: int) -> None:
    data = os.urandom(min(size, 1 << 20)) * (size // (1 << 20) + 1)
    data = data[:size]
    code = "d = open('in/a.txt', 'rb').read(); open('b', 'wb').write(d[::-1])"
    async with fake_store() as store, pod(tmp_path) as (sidecar, client, _runner):
        before = sidecar.memory("VmRSS")
        result = await run(store, client, code, put(store, a=data))
        got = came_back(store, result)
        assert list(got) == ["b"], result
        assert hashlib.sha256(got["b"]).digest() == hashlib.sha256(data[::-1]).digest()
        assert sidecar.memory("VmHWM") - before < 6 * 1024


async def test_a_hostile_program(tmp_path: Path) -> None:
    code = r"""
import os, socket
os.mkfifo("pipe")
socket.socket(socket.AF_UNIX).bind("socket")
os.symlink(".", "loop")
os.symlink("/proc/self/environ", "environ")
open("sparse", "wb").truncate(1 << 40)
open(b"bad\xff", "w"); open("new\nline", "w"); open("\x1b[31m", "w"); open("CON", "w").write("device")
open("hard", "w").write("h"); os.link("hard", "link")
open("locked", "w").write("x"); os.chmod("locked", 0)
os.makedirs(".hidden"); open(".hidden/x", "w")
os.makedirs("a/b/c/d/e/f/g/h/i/j/k")
open("a/b/c/d/e/f/g/h/i/j/too-deep", "w"); open("a/b/c/d/e/f/g/h/i/fits", "w").write("f")
os.makedirs("many")
for n in range(3000): open(f"many/{n:04}", "w")
os.rename("main.py", "renamed.py")
"""
    async with fake_store() as store, pod(tmp_path) as (_sidecar, client, _runner):
        result = await run(store, client, code, files=8, file_bytes=1 << 20)
        assert result.reason == "Succeeded", result
        assert list(came_back(store, result)) == [
            "CON",
            "a/b/c/d/e/f/g/h/i/fits",
            "hard",
            "link",
            "locked",
        ] + [f"many/{n:04}" for n in range(3)]
        assert len(result.skipped) == 20
        named = skipped(result)
        assert (named["a/b/c/d/e/f/g/h/i/j"], named["bad\\xff"], named["\\x1b[31m"]) == (
            "depth",
            "path",
            "path",
        )
        assert result.skipped_count == 1 + 3 + 1 + 2997 + 1


async def test_files_too_long_or_too_many(tmp_path: Path) -> None:
    code = "for n in range(6): open(str(n), 'wb').write(bytes(1000 * (n + 1)))"
    async with fake_store() as store, pod(tmp_path) as (_sidecar, client, _runner):
        result = await run(store, client, code, files=5, file_bytes=5500, total_bytes=7000)
        assert list(came_back(store, result)) == ["0", "1", "2"]
        assert skipped(result) == {"3": "total", "4": "total", "5": "size"}


@pytest.mark.parametrize(
    ("code", "more", "reason"),
    [
        ("open('a', 'w').write('x'); raise SystemExit(3)", {}, "NonZeroExit"),
        ("open('a', 'w').write('x'); import os; os.kill(os.getpid(), 9)", {}, "Signalled"),
        (
            "f = open('a', 'w'); f.write('x'); f.close(); import time; time.sleep(60)",
            {"timeout": 1},
            "TimeLimit",
        ),
    ],
)
async def test_files_come_back_however_the_program_ends(
    tmp_path: Path, code: str, more: dict[str, object], reason: str
) -> None:
    async with fake_store() as store, pod(tmp_path) as (_sidecar, client, _runner):
        result = await run(store, client, code, **more)
        assert result.reason == reason
        assert came_back(store, result) == {"a": b"x"}


async def test_a_program_that_goes_on_writing_is_ended_first(tmp_path: Path) -> None:
    code = """
import os, time
if os.fork() == 0:
    os.setsid()
    f = open("grows", "ab", 0)
    while True: f.write(b"x" * 1000); time.sleep(0.001)
time.sleep(0.5)
"""
    async with fake_store() as store, pod(tmp_path) as (_sidecar, client, _runner):
        result = await run(store, client, code)
        (file,) = result.files
        assert file.bytes == len(came_back(store, result)["grows"]) > 0


async def test_a_full_scratch_space(tmp_path: Path) -> None:
    async with fake_store() as store, pod(tmp_path, scratch="1m") as (_sidecar, client, _runner):
        answer = await prepare(client, "print(1)", put(store, a=bytes(700_000), b=bytes(700_000)))
        assert (answer.status, answer.json["error"]) == (422, "inputs_too_large")


async def test_code_that_does_not_fit_beside_its_inputs(tmp_path: Path) -> None:
    async with fake_store() as store, pod(tmp_path, scratch="1m") as (_sidecar, client, _runner):
        answer = await prepare(client, "#" * 16000, put(store, a=bytes(1_044_000)))
        assert (answer.status, answer.json["error"]) == (422, "inputs_too_large")


async def test_inputs_that_just_fit(tmp_path: Path) -> None:
    async with fake_store() as store, pod(tmp_path, scratch="1m") as (_sidecar, client, _runner):
        code = "import os; print(os.path.getsize('in/a.txt')); open('b', 'wb').write(bytes(500_000))"
        result = await run(store, client, code, put(store, a=bytes(900_000)))
        assert result.reason == "DiskFull", "the program finds the folder full, and says so"
        assert "No space left on device" in str(result.stderr.text)
        assert result.stdout.text == "900000\n"


async def test_a_path_no_file_system_takes(tmp_path: Path) -> None:
    async with fake_store() as store, pod(tmp_path) as (_sidecar, client, _runner):
        store.objects["x"] = bytes(5_000_000)
        inputs = [
            InputFile("fine", store.url("x"), 5_000_000),
            InputFile("ü" * 200, store.url("x"), 5_000_000),
        ]
        answer = await prepare(client, "print(1)", inputs)
        assert (answer.status, answer.json["error"], answer.json["input"]) == (422, "input_unavailable", 1)


async def test_without_files_the_answer_comes_as_fast(tmp_path: Path) -> None:
    """Not a measurement: it only tells milliseconds from a scan or a round trip too many."""
    async with fake_store() as store, pod(tmp_path) as (_sidecar, client, _runner):
        began = time.monotonic()
        result = await run(store, client, "print(1)")
        assert result.stdout.text == "1\n"
        assert result.files == ()
        assert time.monotonic() - began - result.usage.wall_seconds < 0.5
        assert store.calls == []


async def test_the_runtime_dies_while_files_are_collected(tmp_path: Path) -> None:
    async with fake_store() as store, pod(tmp_path) as (_sidecar, client, process):
        honest = store._honest

        async def kill_first(call: object, writer: asyncio.StreamWriter) -> None:
            if len(store.calls) == 2:
                process.kill()
                await process.wait()
            await honest(call, writer)  # type: ignore[arg-type]

        store._honest = kill_first  # type: ignore[method-assign]
        code = """
for name in "ab": open(name, "wb").write(bytes(20_000_000))
for n in range(9): open(f"z{n}", "wb").write(bytes(9_000_000))
"""
        result = await run(
            store, client, code + "\nfor n in range(9): open(f'z{n}', 'wb').write(bytes(9_000_000))"
        )
        assert (result.reason, result.exit_code) == ("Succeeded", 0)
        assert "a" in came_back(store, result)
        assert set(skipped(result).values()) == {"unreadable"}
        assert len(result.files) + result.skipped_count == 11
