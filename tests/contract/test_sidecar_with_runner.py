"""The sidecar and the real runner, each in a process of its own, the runner as PID 1 of its namespace."""

import asyncio
import signal
from pathlib import Path

import pytest

from contract.fakes_sidecar.client import Client, job
from contract.fakes_sidecar.pair import WHY_IMPOSSIBLE, pod
from kubecoderun_sidecar.protocol import RunResult

pytestmark = pytest.mark.skipif(WHY_IMPOSSIBLE is not None, reason=str(WHY_IMPOSSIBLE))


async def run_code(client: Client, code: str, **more: float) -> RunResult:
    answer = await client.request("POST", "/v1/prepare", job(code, **more))  # type: ignore[arg-type]
    assert answer.status == 200, answer
    return await client.result()


async def test_print(tmp_path: Path) -> None:
    async with pod(tmp_path) as (_sidecar, client, _runner):
        result = await run_code(client, "print(1)")
        assert (result.reason, result.exit_code, result.signal) == ("Succeeded", 0, None)
        assert (result.stdout.text, result.stderr.text) == ("1\n", "")
        assert result.usage.cpu_seconds is not None
        assert result.usage.max_rss_bytes


async def test_input_of_all_kinds(tmp_path: Path) -> None:
    code = "import os, sys\nprint(sys.argv[1:], os.environ['GREETING'], sys.stdin.read())"
    async with pod(tmp_path) as (_sidecar, client, _runner):
        body = job(code, args=("a b", "é"), stdin="from stdin", env={"GREETING": "hello"})
        assert (await client.request("POST", "/v1/prepare", body)).status == 200
        result = await client.result()
        assert result.stdout.text == "['a b', 'é'] hello from stdin\n", result


async def test_an_error(tmp_path: Path) -> None:
    async with pod(tmp_path) as (_sidecar, client, _runner):
        result = await run_code(client, "print('before')\n1 / 0")
        assert (result.reason, result.exit_code) == ("NonZeroExit", 1)
        assert result.stdout.text == "before\n"
        assert result.stderr.text is not None
        assert result.stderr.text.endswith("ZeroDivisionError: division by zero\n")


async def test_a_signal(tmp_path: Path) -> None:
    async with pod(tmp_path) as (_sidecar, client, _runner):
        result = await run_code(client, "import os\nos.kill(os.getpid(), 11)")
        assert (result.reason, result.exit_code, result.signal) == ("Signalled", None, "SIGSEGV")


async def test_a_time_limit(tmp_path: Path) -> None:
    async with pod(tmp_path) as (sidecar, client, _runner):
        code = "import time\nprint('begun', flush=True)\ntime.sleep(60)"
        result = await run_code(client, code, timeout=1)
        assert result.reason == "TimeLimit"
        assert result.detail is None, "the runner itself enforced it"
        assert result.stdout.text == "begun\n"
        assert 1 <= result.usage.wall_seconds < 3
        assert (await Client(sidecar.port).request("GET", "/v1/state")).json["runtime"] == "warm"


async def test_much_output(tmp_path: Path) -> None:
    async with pod(tmp_path) as (sidecar, client, _runner):
        before = sidecar.memory("VmRSS")
        result = await run_code(client, "for _ in range(50):\n    print('x' * 1_048_575)")
        assert result.reason == "Succeeded"
        assert (result.stdout.bytes, result.stdout.truncated) == (50 << 20, True)
        assert sidecar.memory("VmHWM") - before < 16 * 1024


async def test_cancel(tmp_path: Path) -> None:
    async with pod(tmp_path) as (sidecar, client, _runner):
        code = "import time\nprint('begun', flush=True)\ntime.sleep(60)"
        assert (await client.request("POST", "/v1/prepare", job(code))).status == 200
        following = asyncio.create_task(client.result())
        await asyncio.sleep(0.5)
        other = Client(sidecar.port)
        assert (await other.request("POST", "/v1/cancel", b"{}")).status == 202
        result = await asyncio.wait_for(following, 5)
        assert (result.reason, result.signal) == ("Cancelled", "SIGKILL")
        assert (await other.request("GET", "/v1/state")).json["runtime"] == "warm", "it obeyed"


async def test_the_runtime_is_killed(tmp_path: Path) -> None:
    async with pod(tmp_path) as (_sidecar, client, process):
        code = "import time\nprint('begun', flush=True)\ntime.sleep(60)"
        assert (await client.request("POST", "/v1/prepare", job(code))).status == 200
        following = asyncio.create_task(client.result())
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGKILL)
        result = await asyncio.wait_for(following, 3)
        assert (result.reason, result.stdout.text) == ("RuntimeLost", "begun\n")
