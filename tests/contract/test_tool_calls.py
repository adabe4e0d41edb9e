"""Programs that call tools: real runner as PID 1, real sidecar, and the test in the operator's place."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from contract.fakes_sidecar.client import Client, job, start
from contract.fakes_sidecar.pair import WHY_IMPOSSIBLE, pod
from contract.fakes_sidecar.store import fake_store
from contract.fakes_sidecar.tools import Host
from kubecoderun_sidecar.protocol import (
    Called,
    FileSlot,
    Limits,
    StartRequest,
    Tool,
    ToolResult,
)

pytestmark = pytest.mark.skipif(WHY_IMPOSSIBLE is not None, reason=str(WHY_IMPOSSIBLE))

WEATHER = Tool("get-weather", "get_weather")
TOOLS = (WEATHER, Tool("class", "class_tool"), Tool("add", "add"))


def weather(tool: str, given: Any) -> Any:
    if tool == "add":
        return given["a"] + given["b"]
    if tool == "class":
        return {"kind": given}
    if given.get("city") == "nowhere":
        raise ValueError("there is no such city: nowhere")
    return {"city": given["city"], "t": 20, "name": "Zürich \u200d"}


async def test_a_call_goes_out_and_its_result_comes_back_into_the_same_process(tmp_path: Path) -> None:
    code = """
import os
before = os.getpid()
print("once")
w = await get_weather(city="SF")
print(w["t"] + 1, w["name"] == "Zürich \\u200d", os.getpid() == before)
"""
    async with pod(tmp_path) as (sidecar, _client, _runner):
        host = Host(sidecar.port, weather)
        result = await host.run(code, TOOLS)
        assert (result.reason, result.stdout.text) == ("Succeeded", "once\n21 True True\n"), result
        assert result.stderr.text == ""
        assert [[call.name for call in calls] for calls in host.rounds] == [["get-weather"]]
        assert host.rounds[0][0].id == "call_001"


async def test_calls_made_at_the_same_time_are_told_together(tmp_path: Path) -> None:
    code = """
async def later(n):
    await asyncio.sleep(0)
    return await add(a=n, b=n)
print(await asyncio.gather(*(add(a=n, b=1) for n in range(10)), *(later(n) for n in range(3))))
"""
    async with pod(tmp_path) as (sidecar, _client, _runner):
        host = Host(sidecar.port, weather)
        result = await host.run(code, TOOLS)
        assert result.stdout.text == "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 2, 4]\n", result
        assert [len(calls) for calls in host.rounds] == [13]


async def test_twenty_calls_one_after_the_other(tmp_path: Path) -> None:
    code = "n = 0\nfor _ in range(20):\n    n = await add(a=n, b=1)\nprint(n)"
    async with pod(tmp_path) as (sidecar, _client, _runner):
        host = Host(sidecar.port, weather)
        result = await host.run(code, TOOLS)
        assert result.stdout.text == "20\n", result
        assert [calls[0].id for calls in host.rounds] == [f"call_{n:03d}" for n in range(1, 21)]


async def test_names_that_are_no_identifiers(tmp_path: Path) -> None:
    code = "print(await class_tool(x=1), (await get_weather(city='A'))['city'])"
    async with pod(tmp_path) as (sidecar, _client, _runner):
        result = await Host(sidecar.port, weather).run(code, TOOLS)
        assert result.stdout.text == "{'kind': {'x': 1}} A\n", result


async def test_an_error_of_a_tool_is_an_exception(tmp_path: Path) -> None:
    code = """
try:
    await get_weather(city="nowhere")
except Exception as error:
    print(type(error).__name__, error)
await get_weather(city="nowhere")
"""
    async with pod(tmp_path) as (sidecar, _client, _runner):
        result = await Host(sidecar.port, weather).run(code, TOOLS)
        assert (result.reason, result.exit_code) == ("NonZeroExit", 1)
        assert result.stdout.text == "ToolError there is no such city: nowhere\n"
        expected = (
            "Traceback (most recent call last):\n"
            f'  File "{tmp_path}/data/main.py", line 6, in <module>\n'
            '    await get_weather(city="nowhere")\n'
            "ToolError: there is no such city: nowhere\n"
        )
        assert result.stderr.text == expected


async def test_errors_of_the_program_show_its_own_lines_only(tmp_path: Path) -> None:
    code = "await add(a=1, b=1)\ndef f():\n    return 1 / 0\nf()\n"
    async with pod(tmp_path) as (sidecar, _client, _runner):
        result = await Host(sidecar.port, weather).run(code, TOOLS)
        text = result.stderr.text or ""
        assert text.startswith(
            f'Traceback (most recent call last):\n  File "{tmp_path}/data/main.py", line 4'
        )
        assert text.endswith("ZeroDivisionError: division by zero\n")
        assert "python_program" not in text, text
        assert "asyncio" not in text, text


@pytest.mark.parametrize(
    ("code", "stdout"),
    [
        ("import asyncio\nasync def main():\n    print(await add(a=1, b=2))\nasyncio.run(main())", "3\n"),
        ("x = await add(a=1, b=2)\nprint(x)\nreturn x", "3\n"),
        ("print(await add({'a': 1, 'b': 2}))", "3\n"),
        ("import sys\nprint(__name__, sys.argv)", "__main__ ['main.py']\n"),
        (
            "async with asyncio.TaskGroup() as g:\n    t = g.create_task(add(a=1, b=2))\nprint(t.result())",
            "3\n",
        ),
        ("print(json.dumps(await add(a=1, b=2)))", "3\n"),
        (
            "try:\n    await asyncio.wait_for(add(a=1, b=2), 0)\nexcept TimeoutError:\n    print('late')",
            "late\n",
        ),
    ],
)
async def test_ways_to_write_a_program(tmp_path: Path, code: str, stdout: str) -> None:
    async with pod(tmp_path) as (sidecar, _client, _runner):
        result = await Host(sidecar.port, weather).run(code, TOOLS)
        assert (result.stdout.text, result.stderr.text, result.reason) == (stdout, "", "Succeeded")


async def test_exit_codes_and_syntax_errors(tmp_path: Path) -> None:
    async with pod(tmp_path) as (sidecar, _client, _runner):
        result = await Host(sidecar.port, weather).run("await add(a=1, b=1)\nimport sys\nsys.exit(7)", TOOLS)
        assert (result.exit_code, result.stderr.text) == (7, "")


async def test_a_syntax_error_is_told_like_the_interpreter_does(tmp_path: Path) -> None:
    async with pod(tmp_path) as (sidecar, _client, _runner):
        result = await Host(sidecar.port, weather).run("x = = 1\n", TOOLS)
        assert result.exit_code == 1
        assert result.stderr.text == (
            f'  File "{tmp_path}/data/main.py", line 1\n    x = = 1\n        ^\nSyntaxError: invalid syntax\n'
        )


async def test_a_tool_that_is_not_registered_is_refused(tmp_path: Path) -> None:
    code = """
import glob, socket
path = glob.glob("/tmp/kcr-tools-*/socket")
def ask(path, calls):
    data = json.dumps({"calls": calls, "settled": True}).encode()
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        s.sendall(len(data).to_bytes(4, "big") + data)
        return s.recv(65536)[4:].decode()
import os
path = max(path, key=os.path.getmtime)
print(ask(path, [{"tool": "shell", "input": "{}"}]))
print(ask(path, [{"tool": "add", "input": "{"}]))
print(repr(ask(path, [{"tool": 3}])), repr(ask(path, [])), repr(ask(path, "x")))
"""
    async with pod(tmp_path) as (sidecar, _client, _runner):
        host = Host(sidecar.port, weather)
        result = await host.run(code, TOOLS)
        first, second, third, *_ = (result.stdout.text or "").split("\n")
        assert json.loads(first) == {"call": 0, "error": "Sandbox requested an unregistered tool: shell"}, (
            result
        )
        assert json.loads(second) == {"call": 0, "error": "the input is not JSON in ASCII"}
        assert third == "'' '' ''"
        assert host.rounds == []


async def test_more_calls_than_a_run_may_make(tmp_path: Path) -> None:
    code = """
done = failed = 0
for start in range(0, 250, 50):
    for r in await asyncio.gather(*(add(a=n, b=0) for n in range(50)), return_exceptions=True):
        done += not isinstance(r, Exception)
        failed += isinstance(r, ToolError) and "at most 200" in str(r)
print(done, failed)
"""
    async with pod(tmp_path) as (sidecar, _client, _runner):
        result = await Host(sidecar.port, weather).run(code, TOOLS)
        assert result.stdout.text == "200 50\n", result


async def test_results_are_given_at_most_once(tmp_path: Path) -> None:
    async with pod(tmp_path) as (sidecar, client, _runner):
        host = Host(sidecar.port, weather)
        body = job("print(await add(a=1, b=1), await add(a=2, b=2))", tools=TOOLS)
        assert (await client.request("POST", "/v1/prepare", body)).status == 200
        stream = client.stream(start())
        call = await _next_calls(stream)
        assert await host.give([ToolResult(call[0].id, value="2")]) == 200
        assert await host.give([ToolResult(call[0].id, value="3")]) == 200
        assert await host.give([ToolResult("call_099", value="3")]) == 200
        call = await _next_calls(stream)
        assert call[0].id == "call_002"
        await host.give([ToolResult("call_001", value="9"), ToolResult("call_002", value="4")])
        result = [event async for event in stream][-1]
        assert result.result.stdout.text == "2 4\n"


async def _next_calls(stream: Any) -> Any:
    async for event in stream:
        if isinstance(event, Called):
            return event.calls
    raise AssertionError("no calls came")


async def test_a_reader_that_comes_later_is_told_what_still_waits(tmp_path: Path) -> None:
    async with pod(tmp_path) as (sidecar, client, _runner):
        body = job("print(await asyncio.gather(add(a=1, b=1), add(a=2, b=2)))", tools=TOOLS)
        assert (await client.request("POST", "/v1/prepare", body)).status == 200
        first = client.stream(start())
        assert len(await _next_calls(first)) == 2
        client.close()  # an operator that ends
        host = Host(sidecar.port, weather)
        assert await host.give([ToolResult("call_001", value="2")]) == 200
        result = await asyncio.wait_for(host.follow(start()), 20)
        assert [[call.id for call in calls] for calls in host.rounds] == [["call_002"]]
        assert result.stdout.text == "[2, 4]\n"


async def test_waiting_for_tools_does_not_count_as_running(tmp_path: Path) -> None:
    async with pod(tmp_path) as (sidecar, client, _runner):
        body = job("print(await add(a=1, b=1), flush=True)\nwhile True: pass", tools=TOOLS, timeout=1)
        assert (await client.request("POST", "/v1/prepare", body)).status == 200
        stream = client.stream(start())
        await _next_calls(stream)
        await asyncio.sleep(2.5)
        assert await Host(sidecar.port, weather).give([ToolResult("call_001", value="2")]) == 200
        result = [event async for event in stream][-1].result
        assert (result.reason, result.stdout.text) == ("TimeLimit", "2\n"), "the result came, then the limit"
        assert result.detail is None, "the runner itself enforced it"


@pytest.mark.parametrize("limits", [Limits(60, tool_wait_seconds=1), Limits(60, all_tool_waits_seconds=1)])
async def test_a_program_nobody_brings_results_is_ended(tmp_path: Path, limits: Limits) -> None:
    async with pod(tmp_path) as (sidecar, _client, _runner):

        class Silent(Host):
            async def answer(self, calls: Any) -> None:
                return

        result = await Silent(sidecar.port, weather).run(
            "print('begun', flush=True)\nawait add(a=1, b=1)", TOOLS, limits=limits
        )
        assert (result.reason, result.stdout.text) == ("ToolWaitExpired", "begun\n")
        assert (await Client(sidecar.port).request("GET", "/v1/state")).json["runtime"] == "warm", "it obeyed"


async def test_cancel_while_it_waits(tmp_path: Path) -> None:
    async with pod(tmp_path) as (sidecar, client, _runner):
        assert (await client.request("POST", "/v1/prepare", job("await add(a=1)", tools=TOOLS))).status == 200
        stream = client.stream(start())
        await _next_calls(stream)
        assert (await Client(sidecar.port).request("POST", "/v1/cancel", b"{}")).status == 202
        assert [event async for event in stream][-1].result.reason == "Cancelled"
        assert await Host(sidecar.port, weather).give([ToolResult("call_001", value="1")]) == 200


async def test_long_inputs_and_results_go_by_the_store(tmp_path: Path) -> None:
    value = json.dumps("é" * 500_000)
    async with fake_store() as store, pod(tmp_path) as (sidecar, client, _runner):
        store.objects["result"] = value.encode()
        slots = (FileSlot("call_001", store.url("input")),)
        code = "r = await add(a='ü' * 50_000)\nprint(len(r), set(r))"
        assert (await client.request("POST", "/v1/prepare", job(code, tools=TOOLS))).status == 200
        stream = client.stream(StartRequest(call_slots=slots).to_json())
        (call,) = await _next_calls(stream)
        assert call.input is None
        stored = store.objects["input"]
        assert json.loads(stored) == {"a": "ü" * 50_000}
        assert (call.bytes, call.sha256) == (len(stored), hashlib.sha256(stored).hexdigest())
        digest = hashlib.sha256(value.encode()).hexdigest()
        host = Host(sidecar.port, weather)
        wrong = ToolResult("call_001", url=store.url("other"), bytes=len(value), sha256=digest)
        assert await host.give([wrong]) == 422
        right = ToolResult("call_001", url=store.url("result"), bytes=len(value), sha256=digest)
        assert await host.give([right]) == 200
        assert [event async for event in stream][-1].result.stdout.text == "500000 {'é'}\n"


async def test_a_long_input_without_a_store_is_an_error_of_the_call(tmp_path: Path) -> None:
    async with pod(tmp_path) as (sidecar, _client, _runner):
        result = await Host(sidecar.port, weather).run("await add(a='x' * 10_000)", TOOLS)
        assert "ToolError: its input is too long without an object store" in (result.stderr.text or "")


# --- Bash -----------------------------------------------------------------------------------------


async def test_bash(tmp_path: Path) -> None:
    code = """: &
wait "$!"
raw=$(get_weather '{"city": "SF"}')
echo "$raw" | jq -c .t
a=$(add '{"a": 1, "b": 2}'); echo "$a"
class_tool ''
bash -c "add '{\\"a\\": 5, \\"b\\": 5}'"
"""
    async with pod(tmp_path) as (sidecar, _client, _runner):
        host = Host(sidecar.port, weather)
        result = await host.run(code, TOOLS, language="bash")
        assert (result.stdout.text, result.stderr.text) == ('20\n3\n{"kind":{}}\n10\n', "")
        assert len(host.rounds) == 4


async def test_bash_in_the_background(tmp_path: Path) -> None:
    code = """
for n in 1 2 3 4; do { r=$(add "{\\"a\\": $n, \\"b\\": 0}"); echo "$r" > out$n; } & done
wait
cat out1 out2 out3 out4
"""
    async with pod(tmp_path) as (sidecar, _client, _runner):
        host = Host(sidecar.port, weather)
        result = await host.run(code, TOOLS, language="bash")
        assert result.stdout.text == "1\n2\n3\n4\n", result
        assert sum(map(len, host.rounds)) == 4


async def test_bash_errors(tmp_path: Path) -> None:
    code = """
get_weather '{"city": "nowhere"}' || echo "failed $?"
add 'no json' || echo "failed $?"
add '[1]' || echo "failed $?"
nothing_like_it '{}' || echo "failed $?"
big=$(head -c 300000 /dev/zero | tr '\\0' x)
add "{\\"a\\": \\"$big\\", \\"b\\": \\"\\"}" > /dev/null || echo "failed $?"
"""
    async with pod(tmp_path) as (sidecar, _client, _runner):
        result = await Host(sidecar.port, weather).run(code, TOOLS, language="bash")
        assert result.stdout.text == "failed 1\nfailed 1\nfailed 1\nfailed 127\nfailed 1\n"
        lines = (result.stderr.text or "").split("\n")
        assert lines[0] == "get-weather: there is no such city: nowhere"
        assert lines[1].startswith("add: the input is not JSON")
        assert lines[2] == "add: the input is not a JSON object"
        assert "nothing_like_it: command not found" in lines[3]
        assert lines[4] == "add: its input is too long without an object store"


async def test_programs_that_call_tools_take_turns_in_a_workspace(tmp_path: Path) -> None:
    """One after the other in one pod; also after one that was given up, and before one without tools."""
    async with pod(tmp_path) as (sidecar, client, _runner):

        def host(run: str) -> Host:
            return Host(sidecar.port, weather, workspace="workspace-uid", run=run)

        assert (await client.request("POST", "/v1/reserve", b"{}", session="workspace-uid")).status == 200
        first = await host("r1").run("open('n', 'w').write(str(await add(a=1, b=2)))", TOOLS)
        assert (first.reason, first.exit_code) == ("Succeeded", 0), first
        given_up = job("print(await add(a=1, b=1))", tools=TOOLS, session="r2")
        answer = await client.request("POST", "/v1/prepare", given_up, session="workspace-uid")
        assert answer.status == 200, answer
        second = await host("r3").run('cat n; echo; add \'{"a": 20, "b": 1}\'', TOOLS, language="bash")
        assert second.stdout.text.split() == ["3", "21"], second
        third = host("r4")
        assert (await third.run("print(open('n').read(), 'add' in globals())", ())).stdout.text == "3 False\n"
        assert third.rounds == []
        assert await host("r1").give([ToolResult("call_001", value="9")]) == 409, "its turn is over"
        assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["n"]
