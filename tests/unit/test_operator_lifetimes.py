"""How long sessions are kept, and which leave something in the store."""

from typing import Any

import pytest

from kubecoderun_crds.pool import PoolSpec
from kubecoderun_operator.lifetimes import Lifetimes, expires_at, has_files, may_have_objects, of_pool
from kubecoderun_operator.orders import Session, session

KEPT = Lifetimes(plain=600, with_files=86_400)
REPORTED = {"exitCode": 0, "stdoutBytes": 3}


def seen(spec: dict[str, Any] | None = None, **status: Any) -> Session:
    return session(
        {
            "metadata": {"namespace": "ns", "name": "hello", "uid": "u"},
            "spec": {"request": {"code": "x"}, **(spec or {})},
            "status": status,
        }
    )


def ended(spec: dict[str, Any] | None = None, **status: Any) -> Session:
    done = {"phase": "Succeeded", "timings": {"completed": "1970-01-01T00:01:40Z"}, **status}
    return seen(spec, **done)


HELD = {"request": {"mode": "Files", "files": [{"id": "a" * 21, "path": "a", "bytes": 1}]}}


@pytest.mark.parametrize(
    ("found", "at"),
    [
        (seen(), None),
        (seen({"expiresAt": "1970-01-01T00:00:07Z"}), 7.0),
        (ended(), 700.0),
        (ended(files=[]), 700.0),
        (ended(files=[{"id": "a" * 21}]), 86_500.0),
        (ended(HELD, phase="Held"), 86_500.0),
        (ended({**HELD, "expiresAt": "1970-01-01T00:00:07Z"}, phase="Held"), 7.0),
        (ended({"expiresAt": "1970-01-12T13:46:40Z"}), 1_000_000.0),
        (seen(phase="Succeeded"), 650.0),
    ],
)
def test_when_a_session_is_deleted(found: Session, at: float | None) -> None:
    assert expires_at(found, KEPT, now=50.0) == at


def test_a_session_of_files_is_unfinished_until_it_is_held() -> None:
    assert expires_at(seen(HELD), KEPT, now=50.0) is None
    assert has_files(seen(HELD))


def test_what_a_pool_says() -> None:
    raw = {
        "runtime": {"image": "i"},
        "sessionDefaults": {"ttlSecondsAfterFinished": 20, "filesTtlSeconds": 40},
    }
    assert of_pool(PoolSpec.model_validate(raw)) == Lifetimes(20, 40)


@pytest.mark.parametrize(
    ("found", "something"),
    [
        (ended(result=REPORTED), False),
        (ended(result={**REPORTED, "stored": True}), True),
        (ended({"request": {"codeRef": {"bytes": 1}}}, result=REPORTED), True),
        (ended(files=[{"id": "a" * 21}], result=REPORTED), True),
        (ended(HELD, phase="Held"), True),
        (ended(phase="Failed", pod={"name": "p"}), True),
        (ended(phase="Failed", pod={"name": "p"}, result={"signal": "SIGKILL"}), True),
        (ended(phase="Failed"), False),
        (seen(phase="Running"), True),
        (seen(), True),
    ],
)
def test_what_may_have_left_something_in_the_store(found: Session, something: bool) -> None:
    """Only a run that was reported to its end is known to have left nothing."""
    assert may_have_objects(found) is something
