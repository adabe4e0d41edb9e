"""What the runner's words mean."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_sidecar.dialogue import ALLOWED, Phase, parse_exit, parse_hello
from kubecoderun_sidecar.fields import ProtocolError

GOOD: dict[str, Any] = {
    "exitCode": 0,
    "signal": None,
    "timedOut": False,
    "cancelled": False,
    "cpuSeconds": 0.5,
    "maxRssBytes": 1000,
    "wallSeconds": 1,
}


def exit_frame(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


@pytest.mark.parametrize(
    ("changes", "asked", "reason"),
    [
        ({}, False, "Succeeded"),
        ({"exitCode": 1}, False, "NonZeroExit"),
        ({"exitCode": 255}, False, "NonZeroExit"),
        ({"exitCode": None, "signal": "SIGSEGV"}, False, "Signalled"),
        ({"exitCode": None, "signal": "SIGKILL", "timedOut": True}, False, "TimeLimit"),
        ({"exitCode": 0, "timedOut": True}, False, "TimeLimit"),
        ({"exitCode": None, "signal": "SIGKILL", "cancelled": True}, True, "Cancelled"),
        ({"exitCode": 0}, True, "Cancelled"),
        ({"exitCode": None, "signal": "SIGKILL", "timedOut": True}, True, "Cancelled"),
        ({"exitCode": None, "signal": "SIGKILL", "oom": True}, False, "OOMKilled"),
        ({"exitCode": None, "signal": "SIGKILL", "oom": True, "cancelled": True}, True, "OOMKilled"),
        ({"exitCode": 0, "cancelled": True}, False, "RuntimeLost"),
    ],
)
def test_reasons(changes: dict[str, Any], asked: bool, reason: str) -> None:
    assert parse_exit(exit_frame(**changes)).reason(cancel_asked=asked) == reason


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"exitCode": -1}, "exitCode"),
        ({"exitCode": 256}, "exitCode"),
        ({"exitCode": True}, "exitCode"),
        ({"exitCode": "0"}, "exitCode"),
        ({"exitCode": None}, "exitCode"),
        ({"signal": "x" * 100}, "signal"),
        ({"signal": "SIG\x1b"}, "signal"),
        ({"signal": "sigkill"}, "signal"),
        ({"signal": ""}, "signal"),
        ({"timedOut": 1}, "timedOut"),
        ({"cpuSeconds": -1}, "cpuSeconds"),
        ({"cpuSeconds": 1e300}, "cpuSeconds"),
        ({"cpuSeconds": 10**400}, "cpuSeconds"),
        ({"cpuSeconds": None}, "cpuSeconds"),
        ({"maxRssBytes": 1.5}, "maxRssBytes"),
        ({"maxRssBytes": 2**63}, "maxRssBytes"),
        ({"wallSeconds": "1"}, "wallSeconds"),
    ],
)
def test_a_malformed_exit_names_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ProtocolError, match=rf"exit\.{field} must be"):
        parse_exit(exit_frame(**changes))


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"null", b"\xff", b'{"exitCode": NaN}', b"[" * 60_000, b'{"a":' * 10_000, b"9" * 60_000],
)
def test_what_is_no_object_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_exit(payload)


@given(st.binary(max_size=200))
def test_nonsense_is_always_a_protocol_error(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_exit(payload)


def test_real_time_signals_have_names() -> None:
    assert parse_exit(exit_frame(exitCode=None, signal="SIGRTMIN+15")).signal == "SIGRTMIN+15"


def test_hello() -> None:
    hello = parse_hello(b'{"protocol":1,"languages":["py","js"],"later":1}')
    assert (hello.languages, hello.features) == ({"py", "js"}, set())
    assert parse_hello(b'{"protocol":1,"languages":[],"features":["again"]}').features == {"again"}
    for bad in (b'{"protocol":2,"languages":[]}', b'{"languages":[]}', b'{"protocol":1,"languages":[1]}'):
        with pytest.raises(ProtocolError, match="hello"):
            parse_hello(bad)


def test_every_phase_has_a_rule() -> None:
    assert set(ALLOWED) == set(Phase)
