"""Programs that call tools, with everything real but the kubelet: API server, operator, front ends, sidecars
and runners are processes; the operator is killed between calls, and calls reach different front ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from client.node_program import run_node
from client.packages import GENERATIONS, HTTP, ClientMissingError, cache_folder, installed
from client.tool_scenarios import READ_BY_THE_MODEL, SCENARIOS
from contract.fakes_sidecar.pair import WHY_IMPOSSIBLE
from faults.control_plane import SESSIONS, ControlPlane, Json
from faults.pods import RealNode
from faults.programs import FrontEndProgram
from faults.system import System, system
from kubecoderun_crds import names

pytestmark = pytest.mark.skipif(WHY_IMPOSSIBLE is not None, reason=str(WHY_IMPOSSIBLE))
RUNTIME = {"image": "localhost/test:1", "languages": ["py", "bash"]}
TOOLS = [{"name": "add"}, {"name": "get-weather"}, {"name": "size"}]


@pytest.fixture
async def on(plane: ControlPlane, tmp_path: Path) -> AsyncIterator[System]:
    """A system with two front ends and pods that run programs."""
    async with system(plane, tmp_path, node_class=RealNode, replicas=2) as made:
        await made.with_programs(operators=1, front_ends=2, runtime=RUNTIME)
        yield made


def host(tool: str, given: Any) -> Any:
    if tool == "add":
        return given["a"] + given["b"]
    if tool == "size":
        return "x" * int(given["n"])
    raise ValueError("there is no weather")


class Client:
    """LibreChat's part, at one front end or several."""

    def __init__(self, *front_ends: FrontEndProgram) -> None:
        self._urls = [front_end.url for front_end in front_ends]
        self.rounds: list[int] = []

    async def call(self, body: Json) -> Json:
        self._urls.append(url := self._urls.pop(0))
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{url}/v1/exec/programmatic", json=body) as answer,
        ):
            found: Json = json.loads(await answer.text())
            assert answer.status == 200, found
            return found

    async def start(self, code: str, **fields: Any) -> Json:
        return await self.call({"code": code, "tools": TOOLS, **fields})

    async def carry_on(self, asked: Json) -> Json:
        self.rounds.append(len(asked["tool_calls"]))
        results = [self._result(call) for call in asked["tool_calls"]]
        return await self.call({"continuation_token": asked["continuation_token"], "tool_results": results})

    async def to_the_end(self, answer: Json) -> Json:
        while answer["status"] == "tool_call_required":
            answer = await self.carry_on(answer)
        return answer

    def _result(self, call: Json) -> Json:
        try:
            return {"call_id": call["id"], "result": host(call["name"], call["input"]), "is_error": False}
        except ValueError as error:
            return {"call_id": call["id"], "result": None, "is_error": True, "error_message": str(error)}


async def test_from_one_front_end_to_the_other(on: System) -> None:
    client = Client(*on.front_ends)
    code = """
import os
pid = os.getpid()
print(await asyncio.gather(add(a=1, b=2), add(a=3, b=4)))
n = 0
for _ in range(20):
    n = await add(a=n, b=1)
try:
    await get_weather()
except ToolError as error:
    print(error)
print(n, len(await size(n=100_000)), os.getpid() == pid)
"""
    answer = await client.to_the_end(await client.start(code))
    assert answer["status"] == "completed", answer
    assert answer["stdout"] == "[3, 7]\nthere is no weather\n20 100000 True\n"
    assert client.rounds == [2, *([1] * 22)]
    session = await on.api.request("GET", f"{SESSIONS}/{answer['session_id']}")
    results = session["spec"]["toolResults"]
    assert len(results) == 24
    assert [id for id, given in results.items() if "valueRef" in given] == ["call_024"]


async def test_bash(on: System) -> None:
    client = Client(*on.front_ends)
    code = 'x=$(add \'{"a":1,"b":2}\'); echo "$x"; get_weather \'{}\' || echo "failed $?"'
    answer = await client.to_the_end(await client.start(code, lang="bash"))
    assert (answer["status"], answer["stdout"]) == ("completed", "3\nfailed 1\n"), answer
    assert answer["stderr"] == "get-weather: there is no weather\n"


async def test_the_operator_is_killed_between_calls(on: System) -> None:
    client = Client(*on.front_ends)
    asked = await client.start("n = 0\nfor _ in range(3):\n    n = await add(a=n, b=2)\nprint(n)")
    for _ in range(2):
        operator = on.operators[0]
        starts = operator.starts
        operator.signal(9)  # type: ignore[arg-type]
        asked = await client.carry_on(asked)
        assert asked["status"] == "tool_call_required", asked
        assert operator.starts > starts
    answer = await client.to_the_end(asked)
    assert (answer["status"], answer["stdout"]) == ("completed", "6\n"), answer
    status = (await on.api.request("GET", f"{SESSIONS}/{answer['session_id']}"))["status"]
    assert status["attempts"] == 1


async def test_the_front_end_is_killed_between_calls(on: System) -> None:
    client = Client(on.front_ends[0])
    asked = await client.start("print(await add(a=1, b=1))")
    before = (await on.api.request("GET", f"{SESSIONS}/{asked['session_id']}"))["metadata"]["labels"]
    on.front_ends[0].signal(9)  # type: ignore[arg-type]
    await asyncio.sleep(0.5)
    await on.front_ends[0].until_ready()
    answer = await client.to_the_end(asked)
    assert (answer["status"], answer["stdout"]) == ("completed", "2\n"), answer
    after = (await on.api.request("GET", f"{SESSIONS}/{asked['session_id']}"))["metadata"]["labels"]
    assert before[names.LABEL_FRONT_END] != after[names.LABEL_FRONT_END]


async def test_a_program_that_is_cancelled_while_it_waits(on: System) -> None:
    client = Client(*on.front_ends)
    asked = await client.start("await add(a=1, b=1)")
    path = f"{SESSIONS}/{asked['session_id']}"
    await on.api.request("PATCH", path, {"spec": {"cancel": True}}, "application/merge-patch+json")
    status = await on.ended({"metadata": {"name": asked["session_id"]}})
    assert status["reason"] == "Cancelled"


async def test_the_real_client(on: System) -> None:
    """LibreChat's own package makes all the calls; tests/client does the same on a cluster."""
    generation = GENERATIONS[-1]
    try:
        folders = {
            "http": installed(HTTP, cache_folder()),
            "agents": installed(generation.packages, cache_folder()),
        }
    except ClientMissingError as missing:
        pytest.skip(str(missing))
    order = {
        "base": f"{on.front_ends[0].url}/v1",
        "key": "any",
        "axios": f"axios-{generation.axios}",
        "style": generation.style,
        "scenarios": SCENARIOS,
        **{name: str(folder) for name, folder in folders.items()},
    }
    results = await asyncio.to_thread(run_node, "tools.cjs", order)
    for scenario, text, calls in READ_BY_THE_MODEL:
        result = results[scenario]
        assert f"stdout:\n{text}".rstrip() in result.get("content", ""), (scenario, result)
        assert len(result["calls"]) == calls
    assert "out of order" in results["uncaught"]["message"]
    assert "time" in results["timeout"]["message"].lower()
    assert results["abort"]["thrown"]
