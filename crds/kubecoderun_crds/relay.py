"""What front end and operator agree on about the output of runs in progress: one signed request.

The front end asks the leading operator what a program has written beyond some offsets; the operator asks the
sidecar. Plain data and pure functions; docs/architecture.md says why it is done this way.
"""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args
from urllib.parse import urlencode

PATH: Final = "/relay/v1/output"
HEADER: Final = "KCR-Relay"
"""Holds `<unix seconds>:<HMAC-SHA256 in hex>`."""
PIECE_BYTES: Final = 32 << 10
"""Most bytes of a stream in one answer."""
MAX_WAIT_SECONDS: Final = 20.0
LEAST_KEY_BYTES: Final = 16
_LIFE_SECONDS: Final = 60
_SKEW_SECONDS: Final = 30
_MAX_ANSWER_OFFSET: Final = 2**63 - 1

RunState = Literal["waiting", "running", "finished"]
"""waiting: the program has not started. finished: all it has written is in its result, or soon will be."""


class RelayError(ValueError):
    """A message that is not as agreed; the text never holds output or keys."""


@dataclass(frozen=True, slots=True)
class Question:
    """Which run, how much of each stream is known already (bytes), and how long to wait for more
    (seconds)."""

    namespace: str
    name: str
    uid: str
    stdout: int = 0
    stderr: int = 0
    wait_seconds: float = 0.0

    def target(self) -> str:
        """Path and query."""
        fields = {
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "wait": f"{self.wait_seconds:.3f}",
        }
        return f"{PATH}?{urlencode(fields)}"

    @classmethod
    def parse(cls, query: dict[str, str]) -> "Question":
        """Raises RelayError."""
        try:
            question = cls(
                query["namespace"],
                query["name"],
                query["uid"],
                int(query["stdout"]),
                int(query["stderr"]),
                float(query["wait"]),
            )
        except (KeyError, ValueError):
            raise RelayError("a field is missing or malformed") from None
        offsets_fit = all(0 <= n <= _MAX_ANSWER_OFFSET for n in (question.stdout, question.stderr))
        if not offsets_fit or not 0 <= question.wait_seconds <= MAX_WAIT_SECONDS:
            raise RelayError("a number is out of range")
        return question


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of one stream from the offset `at` on. `at` is more than was asked for when the bytes between are
    lost to watchers. `total`: how much the program has written so far."""

    at: int = 0
    data: bytes = field(default=b"", repr=False)
    total: int = 0


@dataclass(frozen=True, slots=True)
class Glance:
    """The answer: how far the run is, and what there is beyond the offsets."""

    run: RunState
    stdout: Piece = Piece()
    stderr: Piece = Piece()

    def to_json(self) -> bytes:
        wire: dict[str, Any] = {"run": self.run}
        for name, piece in (("stdout", self.stdout), ("stderr", self.stderr)):
            encoded = base64.b64encode(piece.data).decode("ascii")
            wire[name] = {"at": piece.at, "base64": encoded, "total": piece.total}
        return json.dumps(wire, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, body: bytes) -> "Glance":
        """Raises RelayError."""
        try:
            wire = json.loads(body)
            run = wire["run"]
            if run not in get_args(RunState):
                raise RelayError("run is not known")
            return cls(run, _piece(wire["stdout"]), _piece(wire["stderr"]))
        except (KeyError, TypeError, ValueError):
            raise RelayError("the answer is malformed") from None


def _piece(wire: Any) -> Piece:
    at, total = wire["at"], wire["total"]
    if not isinstance(at, int) or not isinstance(total, int) or at < 0 or total < 0:
        raise RelayError("an offset is not a number of bytes")
    return Piece(at, base64.b64decode(wire["base64"], validate=True), total)


def key_of(text: str) -> bytes:
    """The key that a file holds. Raises RelayError if it is too short to be one."""
    key = text.strip().encode()
    if len(key) < LEAST_KEY_BYTES:
        raise RelayError(f"the relay key must have at least {LEAST_KEY_BYTES} characters")
    return key


def signature(key: bytes, target: str, now: float) -> str:
    """The value of HEADER for a request of `target` (path and query); good for a minute."""
    expires = int(now) + _LIFE_SECONDS
    return f"{expires}:{_mac(key, target, expires)}"


def is_signed(key: bytes, target: str, header: str, now: float) -> bool:
    """Whether whoever sent the header has the key. Clocks may differ by 30 seconds."""
    moment, _, mac = header.partition(":")
    if not moment.isascii() or not moment.isdigit() or len(moment) > 12 or not mac.isascii():
        return False
    expires = int(moment)
    fresh = now - _SKEW_SECONDS <= expires <= now + _LIFE_SECONDS + _SKEW_SECONDS
    return hmac.compare_digest(_mac(key, target, expires), mac) and fresh


def _mac(key: bytes, target: str, expires: int) -> str:
    text = f"kcr-relay1\nGET {target}\n{expires}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
