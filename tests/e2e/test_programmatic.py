"""Programs that call tools of their client: POST /exec/programmatic as LibreChat's client uses it."""

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from e2e.deployment import SESSIONS
from e2e.frontend import Answer, FrontEnd
from e2e.kube import Kube
from e2e.pools import ended, wait_at_target
from e2e.waiting import eventually
from e2e.workloads import OPERATOR, kill, leader, pods_of, wait_replaced

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("pool")]
PATH = "/v1/exec/programmatic"
TOOLS = ("get-weather", "add", "class", "fail")
Tool = Callable[[str, Any], Any]


def host(tool: str, given: Any) -> Any:
    """The client's tools."""
    if tool == "add":
        return given["a"] + given["b"]
    if tool == "get-weather":
        return {"city": given["city"], "t": 20, "text": "Zürich ☀"}
    if tool == "class":
        return "x" * int(given["size"])
    raise ValueError("the tool is out of order")


class Program:
    """One program, served call by call."""

    def __init__(self, front_end: FrontEnd, code: str, **fields: Any) -> None:
        self._front_end = front_end
        tools = [{"name": name, "description": "d", "parameters": {"type": "object"}} for name in TOOLS]
        self.rounds: list[list[str]] = []
        self.answer = self._post({"code": code, "tools": tools, **fields})

    @property
    def waits(self) -> bool:
        return bool(self.answer.parsed.get("status") == "tool_call_required")

    def results(self) -> list[dict[str, Any]]:
        """What the tools make of the calls that wait."""
        self.rounds.append([call["id"] for call in self.answer["tool_calls"]])
        return [self._result(call) for call in self.answer["tool_calls"]]

    def carry_on(self, results: list[dict[str, Any]] | None = None) -> Answer:
        """Bring results, by default those of all calls that wait."""
        given = self.results() if results is None else results
        token = self.answer["continuation_token"]
        self.answer = self._post({"continuation_token": token, "tool_results": given})
        return self.answer

    def to_the_end(self) -> Answer:
        while self.waits:
            self.carry_on()
        return self.answer

    def _post(self, body: dict[str, Any]) -> Answer:
        answer = self._front_end.call("POST", PATH, json.dumps(body).encode())
        assert answer.status == 200, answer.body
        return answer

    def _result(self, call: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"call_id": call["id"], "result": host(call["name"], call["input"]), "is_error": False}
        except ValueError as error:
            why = {"is_error": True, "error_message": str(error)}
            return {"call_id": call["id"], "result": None, **why}


def completed(front_end: FrontEnd, code: str, **fields: Any) -> Program:
    program = Program(front_end, code, **fields)
    answer = program.to_the_end()
    assert answer["status"] == "completed", answer.parsed
    return program


def test_parallel_calls_and_names(front_end: FrontEnd, kube: Kube) -> None:
    code = """
import os
pid = os.getpid()
a, b, c = await asyncio.gather(get_weather(city="A"), get_weather(city="B"), add(a=1, b=2))
print(a["city"], b["text"], c, len(await class_tool(size=3)), os.getpid() == pid)
open("made.txt", "w").write("x")
"""
    program = completed(front_end, code)
    assert program.rounds == [["call_001", "call_002", "call_003"], ["call_004"]]
    assert program.answer["stdout"] == "A Zürich ☀ 3 3 True\n"
    assert [file["name"] for file in program.answer["files"]] == ["made.txt"]
    spec = kube.session(program.answer.session)["spec"]
    assert spec["request"]["tools"] == list(TOOLS)


def test_twenty_in_sequence(front_end: FrontEnd) -> None:
    program = completed(front_end, "n = 0\nfor _ in range(20):\n    n = await add(a=n, b=1)\nprint(n)")
    assert (program.answer["stdout"], len(program.rounds)) == ("20\n", 20)


def test_errors_of_tools_are_exceptions(front_end: FrontEnd) -> None:
    code = "try:\n    await fail()\nexcept Exception as e:\n    print('caught', e)\nawait fail()"
    answer = Program(front_end, code).to_the_end()
    assert (answer["status"], answer["error"]) == ("error", "Sandbox exited with code 1")
    assert answer["stdout"] == "caught the tool is out of order\n"
    assert answer["stderr"].splitlines()[-1] == "ToolError: the tool is out of order"
    assert "kubecoderun" not in answer["stderr"]


def test_tools_that_are_not_registered(front_end: FrontEnd) -> None:
    answer = Program(front_end, "await delete_everything()").to_the_end()
    assert answer["error"] == "Sandbox exited with code 1"
    assert "NameError: name 'delete_everything' is not defined" in answer["stderr"]


def test_long_values_go_by_the_store(front_end: FrontEnd, kube: Kube) -> None:
    code = "r = await class_tool(size=200_000, text='ü' * 20_000)\nprint(len(r))"
    program = Program(front_end, code)
    session = kube.session(program.answer.session)
    assert set(session["status"]["toolCalls"]["call_001"]) == {"name", "inputRef"}
    assert program.answer["tool_calls"][0]["input"]["text"] == "ü" * 20_000
    answer = program.to_the_end()
    assert answer["stdout"] == "200000\n"
    assert set(kube.session(answer.session)["spec"]["toolResults"]["call_001"]) == {"valueRef"}


def test_bash(front_end: FrontEnd) -> None:
    code = """: &
wait "$!"
{ a=$(add '{"a": 1, "b": 2}'); echo "$a" > a; } &
{ b=$(get_weather '{"city": "B"}'); echo "$b" > b; } &
wait
cat a b
fail '{}' || echo "status $?"
"""
    answer = completed(front_end, code, lang="bash").answer
    assert answer["stdout"] == '3\n{"city":"B","t":20,"text":"Zürich ☀"}\nstatus 1\n'
    assert answer["stderr"] == "fail: the tool is out of order\n"


def test_the_time_limit_does_not_count_waiting(front_end: FrontEnd) -> None:
    program = Program(front_end, "print(await add(a=1, b=1), flush=True)\nwhile True: pass", timeout=2000)
    time.sleep(3)
    answer = program.to_the_end()
    assert (answer["error"], answer["stdout"]) == ("Time limit exceeded", "2\n")


def test_operator_replaced_between_two_calls(front_end: FrontEnd, kube: Kube, full_pool: str) -> None:
    program = Program(front_end, "x = 5\ny = await add(a=x, b=1)\nz = await add(a=y, b=1)\nprint(x, y, z)")
    first = kube.session(program.answer.session)["status"]["pod"]["uid"]
    wait_replaced(kube, "kubecoderun-operator", kill(kube, "kubecoderun-operator", grace=0))
    answer = program.to_the_end()
    assert (answer["status"], answer["stdout"]) == ("completed", "5 6 7\n")
    status = kube.session(answer.session)["status"]
    assert (status["pod"]["uid"], status["attempts"]) == (first, 1)
    wait_at_target(kube, full_pool)


def test_front_end_replaced_between_two_calls(front_end: FrontEnd, kube: Kube, full_pool: str) -> None:
    """The new process has another id: the session's label moves to it with the result."""
    program = Program(front_end, "y = await add(a=1, b=1)\nz = await add(a=y, b=1)\nprint(y, z)")
    name, label = program.answer.session, "kubecoderun.io/front-end"
    before = kube.session(name)["metadata"]["labels"][label]
    wait_replaced(kube, "kubecoderun-api", kill(kube, "kubecoderun-api", grace=0))

    def carried() -> bool:
        try:
            program.to_the_end()
        except (OSError, AssertionError):
            return False
        return True

    eventually(carried, "the new front end takes the program over")
    assert program.answer["stdout"] == "2 3\n"
    assert kube.session(name)["metadata"]["labels"][label] != before


def test_cancel(front_end: FrontEnd, kube: Kube) -> None:
    """A call that is in progress, by the id that its client gave it."""
    request_id = str(uuid.uuid4())
    body = {"code": "import time\ntime.sleep(60)", "tools": [{"name": "add"}], "timeout": 100_000}
    before = {session["metadata"]["name"] for session in kube.items(SESSIONS)}
    headers = front_end.headers(X_LibreChat_Code_Request_ID=request_id)
    connection = front_end.connection()
    connection.request("POST", PATH, json.dumps(body).encode(), headers)

    def new() -> str | None:
        return next(iter({one["metadata"]["name"] for one in kube.items(SESSIONS)} - before), None)

    name = eventually(new, "the session appears")
    cancel = front_end.call("POST", f"{PATH}/cancel", json.dumps({"request_id": request_id}).encode())
    assert (cancel.status, cancel["status"]) == (202, "cancellation_requested")
    assert json.loads(connection.getresponse().read())["status"] == "error"
    connection.close()
    assert ended(kube, name)["status"]["reason"] == "Cancelled"


def test_a_program_nobody_continues_can_be_cancelled_in_the_cluster(front_end: FrontEnd, kube: Kube) -> None:
    program = Program(front_end, "await add(a=1, b=1)")
    name = program.answer.session
    status = kube.session(name)["status"]
    assert (status["phase"], status["reason"]) == ("Running", "WaitingForTools")
    kube.kubectl("patch", f"executionsession/{name}", "--type=merge", "-p", '{"spec":{"cancel":true}}')
    assert ended(kube, name)["status"]["reason"] == "Cancelled"
    answer = program.carry_on()
    assert (answer["status"], answer["error"]) == ("error", "Execution failed or timed out")


def test_a_program_nobody_continues_is_ended(front_end: FrontEnd, kube: Kube, full_pool: str) -> None:
    """The bound is an operator's setting; a short one for this test."""
    deployment = "deployment/kubecoderun-operator"
    kube.kubectl("-n", "kubecoderun-system", "set", "env", deployment, "KCR_TOOL_WAIT_SECONDS=3")
    try:
        kube.kubectl("-n", "kubecoderun-system", "rollout", "status", deployment, "--timeout=120s")
        # The old leader may still be on its way out, and take what comes until it has been told.
        eventually(lambda: leader(kube) in with_setting(kube), "one with the setting leads")
        wait_at_target(kube, full_pool)
        program = Program(front_end, "print('x', flush=True)\nawait add(a=1, b=1)")
        status = ended(kube, program.answer.session)["status"]
        assert (status["phase"], status["reason"]) == ("TimedOut", "ToolWaitExpired")
        body = {"continuation_token": program.answer["continuation_token"], "tool_results": program.results()}
        late = front_end.call("POST", PATH, json.dumps(body).encode())
        assert (late.status, late["error"]) == (404, "Execution not found or expired")
    finally:
        kube.kubectl("-n", "kubecoderun-system", "set", "env", deployment, "KCR_TOOL_WAIT_SECONDS-")
        kube.kubectl("-n", "kubecoderun-system", "rollout", "status", deployment, "--timeout=120s")
    wait_at_target(kube, full_pool)


def with_setting(kube: Kube) -> set[str]:
    """Pods of operators that have KCR_TOOL_WAIT_SECONDS."""
    return {
        pod["metadata"]["name"]
        for pod in pods_of(kube, OPERATOR)
        if any(each["name"] == "KCR_TOOL_WAIT_SECONDS" for each in pod["spec"]["containers"][0]["env"])
    }


def test_a_program_in_a_workspace_finds_and_leaves_files(front_end: FrontEnd, kube: Kube) -> None:
    """With a hint, and the newest client sends one, it has its turn in the workspace until it has ended."""
    hint = {"runtime_session_hint": f"v2:conversation:{uuid.uuid4().hex}"}
    first = front_end.exec("open('n', 'w').write('20')", **hint)
    assert (first.status, first["runtime_status"]) == (200, "new")
    code = (
        "n = await add(a=int(open('n').read()), b=1)\n"
        "open('n', 'w').write(str(n))\n"
        "print(await add(a=n, b=1))"
    )
    program = Program(front_end, code, **hint)
    answer = program.to_the_end()
    assert (answer["status"], answer["stdout"]) == ("completed", "22\n")
    assert answer["runtime_status"] == "reused"
    assert answer["runtime_session_id"] == first["runtime_session_id"]
    assert len(program.rounds) == 2
    last = front_end.exec("print(open('n').read())", **hint)
    assert last["stdout"] == "21\n"
    spec = kube.session(last.session)["spec"]["request"]
    kube.delete(f"{SESSIONS}/{spec['workspaceRef']['name']}")
