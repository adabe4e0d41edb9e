"""Runs the code of a request once before the first one comes.

A pod serves one run, so without this every run would be the first one: libsodium, h11 and the interpreter
are measurably slower when they do something for the first time.
"""

from __future__ import annotations

from contextlib import suppress

import h11

from kubecoderun_sidecar.answers import Finished, RunResult, Started, StateAnswer, event_line
from kubecoderun_sidecar.clock import rfc3339
from kubecoderun_sidecar.dialogue import parse_exit
from kubecoderun_sidecar.frames import FrameDecoder, encode_frame
from kubecoderun_sidecar.listing import Listing
from kubecoderun_sidecar.output import OutputKeeper
from kubecoderun_sidecar.protocol import (
    PATH_PREPARE,
    Caller,
    FormTarget,
    InlineCode,
    Limits,
    OutputTarget,
    PrepareRequest,
    SessionRef,
    SignatureError,
    Signer,
    StartRequest,
    Usage,
    Verifier,
)

_ROUNDS = 3
_EXIT = b'{"exitCode":0,"cpuSeconds":0,"maxRssBytes":0,"wallSeconds":0}'
_LISTING = b'{"skipped":[],"skippedCount":0}'


def rehearse(verifier: Verifier, now: float) -> None:
    """Read, check and answer a request that nobody sent. Nothing of it is kept."""
    # A key made up here: the signature is well-formed, and refused.
    signer = Signer(bytes(32))
    body = PrepareRequest(
        SessionRef("n", "n", "u"), "py", InlineCode("print(1)"), ("a",), "", {"A": "b"}
    ).to_json()
    headers = signer.headers(
        "POST", PATH_PREPARE, pod_uid="p", caller=Caller("u", 0), body=body, expires=int(now)
    )
    for _ in range(_ROUNDS):
        received = _exchange(headers, body)
        with suppress(SignatureError):
            verifier.verify("POST", PATH_PREPARE, received, body, now)
        PrepareRequest.parse(body)
        grant = OutputTarget("p", FormTarget("http://s/b", "k/", {"policy": "p"}))
        StartRequest.parse(StartRequest(outputs=grant).to_json())
        _runner_frames()
        StateAnswer(None, 0, None, "waiting").to_json()
        _result_lines(now)


def _exchange(headers: dict[str, str], body: bytes) -> dict[str, str]:
    """A request and a chunked answer through h11; the headers as the server sees them."""
    lines = [f"POST {PATH_PREPARE} HTTP/1.1", "Host: pod", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    http = h11.Connection(h11.SERVER)
    http.receive_data("\r\n".join([*lines, "", ""]).encode("ascii") + body)
    seen: dict[str, str] = {}
    while not isinstance(event := http.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Request):
            seen = {name.decode("ascii"): value.decode("ascii") for name, value in event.headers}
    answer = h11.Response(status_code=200, headers=[(b"transfer-encoding", b"chunked")])
    http.send(answer)
    http.send(h11.Data(data=b"{}"))
    http.send(h11.EndOfMessage())
    http.start_next_cycle()
    return seen


def _runner_frames() -> None:
    """The end of a run without files, as the runner tells it."""
    listing = Listing(Limits(files=1), ())
    decoder = FrameDecoder()
    decoder.allowed = b"XZ"
    for kind, payload in decoder.feed(memoryview(encode_frame(b"X", _EXIT) + encode_frame(b"Z", _LISTING))):
        if kind == ord("X"):
            parse_exit(bytes(payload))
        else:
            listing.finish(bytes(payload))


def _result_lines(now: float) -> None:
    """Both events of a run with a little output."""
    keeper = OutputKeeper(1024)
    keeper.add(memoryview(b"1\n"))
    kept = keeper.kept()
    output = kept.captured(kept.preview(1024))
    at = rfc3339(now)
    result = RunResult("Succeeded", 0, None, at, at, None, output, output, False, Usage(0.0, 0, 0.0))
    event_line(Started(at)) + event_line(Finished(result))
