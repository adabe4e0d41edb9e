"""Watching a run on the deployed system: from the program's print to the event, through all parts."""

import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from e2e.frontend import Answer, FrontEnd, exec_body
from e2e.kube import Kube

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("pool")]
Event = tuple[str, dict[str, Any], str]

TALKER = """
import sys, time
for number in range(5):
    print("line", number, flush=True)
    print("note", number, file=sys.stderr, flush=True)
    time.sleep(0.5)
print("done")
"""


def hand_in(front_end: FrontEnd, code: str, **fields: Any) -> Answer:
    headers = front_end.headers(Prefer="respond-async")
    answer = front_end.call("POST", "/v1/exec", exec_body(code, **fields), headers)
    assert answer.status == 202, answer
    return answer


def events(front_end: FrontEnd, session: str, last: str | None = None) -> Iterator[Event]:
    """Events as they come: kind, data, id. Closing the iterator hangs up."""
    connection = front_end.connection(30)
    try:
        connection.request("GET", f"/v1/exec/{session}/events", headers=front_end.headers(Last_Event_ID=last))
        response = connection.getresponse()
        assert response.status == 200, response.status
        yield from _parse(response)
    finally:
        connection.close()


def _parse(response: http.client.HTTPResponse) -> Iterator[Event]:
    fields: dict[str, str] = {}
    while line := response.readline().decode():
        name, _, value = line.rstrip("\n").partition(": ")
        if name:
            fields[name] = value
        elif "event" in fields:
            yield fields["event"], json.loads(fields["data"]), fields.get("id", "")
            fields = {}
        else:
            fields = {}


def text(told: list[Event], stream: str = "stdout") -> str:
    return "".join(data["text"] for kind, data, _ in told if kind == stream)


def test_output_comes_while_the_program_runs(front_end: FrontEnd) -> None:
    session = hand_in(front_end, TALKER).session
    told, moments = [], []
    for event in events(front_end, session):
        told.append(event)
        if event[0] == "stdout":
            moments.append(time.monotonic())
    assert text(told) == "".join(f"line {n}\n" for n in range(5)) + "done\n"
    assert text(told, "stderr") == "".join(f"note {n}\n" for n in range(5))
    assert len(moments) >= 4, "in pieces"
    kind, result, id = told[-1]
    assert (kind, id) == ("result", "end")
    assert (result["stdout"], result["code"]) == (text(told), 0)
    assert moments[-1] - moments[0] >= 1, "the first one long before the end"
    assert front_end.call("GET", f"/v1/exec/{session}").parsed == result


def test_a_watcher_that_comes_again_misses_and_repeats_nothing(front_end: FrontEnd) -> None:
    session = hand_in(front_end, TALKER).session
    told: list[Event] = []
    while not told or told[-1][0] != "result":
        stream = events(front_end, session, told[-1][2] if told else None)
        for event in stream:
            if event[2]:
                told.append(event)
                break
        stream.close()
    assert text(told) == "".join(f"line {n}\n" for n in range(5)) + "done\n"
    assert text(told, "stderr") == "".join(f"note {n}\n" for n in range(5))


def test_several_watchers_see_the_same(front_end: FrontEnd) -> None:
    session = hand_in(front_end, TALKER).session
    with ThreadPoolExecutor(3) as threads:
        seen = list(threads.map(lambda _: list(events(front_end, session)), range(3)))
    assert len({(text(told), text(told, "stderr")) for told in seen}) == 1
    assert len({json.dumps(told[-1][1], sort_keys=True) for told in seen}) == 1


def test_a_plain_call_can_be_watched_by_its_header(front_end: FrontEnd) -> None:
    """The header comes with the status line, seconds before the answer."""
    connection = front_end.connection()
    try:
        code = 'import time\nprint("hello", flush=True)\ntime.sleep(6)'
        connection.request("POST", "/v1/exec", exec_body(code), front_end.headers())
        response = connection.getresponse()
        session = response.headers["KCR-Session-Id"]
        stream = events(front_end, session)
        assert next(event for event in stream if event[0] == "stdout")[1] == {"text": "hello\n"}
        assert front_end.call("GET", f"/v1/exec/{session}").status == 202, "it still runs"
        stream.close()
        assert json.loads(response.read())["stdout"] == "hello\n"
    finally:
        connection.close()


def test_much_output_is_told_in_part_and_says_so(front_end: FrontEnd) -> None:
    session = hand_in(front_end, 'import sys\nfor n in range(400000):\n    print(f"{n:09}")').session
    told = list(events(front_end, session))
    omitted = sum(data["bytes"] for kind, data, _ in told if kind == "omitted")
    assert text(told).startswith("000000000\n000000001\n")
    assert len(text(told)) + omitted == 4_000_000
    assert omitted > 0


def test_a_run_is_cancelled_while_it_is_watched(front_end: FrontEnd) -> None:
    session = hand_in(front_end, 'import time\nprint("on", flush=True)\ntime.sleep(25)').session
    told = []
    for event in events(front_end, session):
        told.append(event)
        if event[0] == "stdout":
            assert front_end.call("DELETE", f"/v1/exec/{session}").status == 202
    assert told[-1][0] == "result"
    assert told[-1][1]["message"] == "Cancelled"


def test_watching_writes_nothing(front_end: FrontEnd, kube: Kube) -> None:
    session = hand_in(
        front_end, "import time\nfor n in range(30):\n    print(n, flush=True)\n    time.sleep(0.2)"
    ).session
    stream = events(front_end, session)
    for kind, data, _ in stream:
        if kind == "status" and data["phase"] == "Running":
            break
    versions = set()
    for _, event in zip(range(10), stream, strict=False):
        if event[0] == "stdout":
            versions.add(kube.session(session)["metadata"]["resourceVersion"])
    stream.close()
    assert len(versions) == 1
    front_end.call("DELETE", f"/v1/exec/{session}")
