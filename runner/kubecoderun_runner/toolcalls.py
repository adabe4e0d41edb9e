"""Tool calls of a program: it asks on a unix socket, PID 1 passes calls on and brings results back.

On that socket a message is four bytes of length (big-endian) and JSON. A program opens a connection and sends
one message, `{"calls": [{"tool", "input"}], "settled"}`: `input` is JSON as text, `settled` says that no
other call follows at once. Back come, in any order, `{"call", "bytes"}` and so many bytes of JSON, or
`{"call", "error"}`; `call` is the place in the list.
"""

from __future__ import annotations

import os
import selectors
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kubecoderun_runner import frames
from kubecoderun_runner.frames import FrameError
from kubecoderun_runner.program import Run

MAX_MESSAGE_BYTES: Final = 1 << 20
MAX_RESULT_BYTES: Final = 8 << 20
MAX_CONNECTIONS: Final = 256
MAX_BATCH: Final = 256
_MAX_ERROR_LENGTH: Final = 16 << 10
_READ_BYTES: Final = 1 << 16
_LENGTH_BYTES: Final = 4


@dataclass(frozen=True)
class Answer:
    """Frame A: what came of a call. V frames with `bytes` of JSON follow unless there is an `error`."""

    number: int
    bytes: int
    error: str | None


def parse_answer(fields: Mapping[str, Any]) -> Answer:
    """Check frame A; FrameError names the field that is wrong."""
    number, size, error = fields.get("number"), fields.get("bytes", 0), fields.get("error")
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise FrameError("number is not that of a call")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_RESULT_BYTES:
        raise FrameError("bytes is not a size")
    if error is not None and (not isinstance(error, str) or len(error) > _MAX_ERROR_LENGTH):
        raise FrameError("error is not a short text")
    return Answer(number, 0 if error is not None else size, error)


def message(**fields: object) -> bytes:
    """One message of the socket."""
    return frames.encode_json(b"?", **fields)[1:]


class ToolDesk:
    """The calls of one run. `path` is where programs connect; the folder it is in goes with `close`."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        send: Callable[[bytes], None],
        run: Callable[[], Run | None],
    ) -> None:
        """`send` takes frames for the sidecar; `run` is told whether a call waits for its result.
        OSError when there is no room for the socket."""
        self._selector = selector
        self._send = send
        self._run = run
        self.folder = tempfile.mkdtemp(prefix="kcr-tools-", dir="/tmp")
        self.path = os.path.join(self.folder, "socket")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._callers: dict[int, _Caller] = {}
        self._open: dict[int, tuple[_Caller, int]] = {}
        """Calls that are out, by number: who made them, and at which place of its list."""
        self._made = 0
        self._answer: Answer | None = None
        """The one whose bytes are coming."""
        self._left = 0
        selector.register(self._listener, selectors.EVENT_READ, self._on_connection)

    def close(self) -> None:
        """The run is over."""
        for caller in list(self._callers.values()):
            self._drop(caller)
        self._open.clear()
        self._selector.unregister(self._listener)
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- from the sidecar

    def take(self, kind: bytes, payload: bytes) -> None:
        """Frame A or V. FrameError for one that is about no call that is out."""
        if kind == b"A":
            self._begin(payload)
        else:
            self._go_on(payload)

    def _begin(self, payload: bytes) -> None:
        if self._answer is not None:
            raise FrameError("an answer within another")
        answer = parse_answer(frames.decode_json(payload))
        if answer.number not in self._open:
            raise FrameError("an answer to a call that is not out")
        caller, place = self._open[answer.number]
        if answer.error is not None:
            caller.send(message(call=place, error=answer.error))
        else:
            caller.send(message(call=place, bytes=answer.bytes))
        self._answer, self._left = answer, answer.bytes
        self._end_of_answer()

    def _go_on(self, piece: bytes) -> None:
        if self._answer is None or len(piece) > self._left:
            raise FrameError("a piece of a result that was not announced")
        self._open[self._answer.number][0].send(piece)
        self._left -= len(piece)
        self._end_of_answer()

    def _end_of_answer(self) -> None:
        if self._answer is None or self._left:
            return
        caller, _ = self._open.pop(self._answer.number)
        self._answer = None
        caller.owed -= 1
        self._flush(caller)
        if not self._open:
            self._tell(False)

    # -- from programs

    def _on_connection(self, _fd: int, _events: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it has gone again, or we have too many files open: it will be told so
        if len(self._callers) >= MAX_CONNECTIONS:
            connection.close()
            return
        connection.setblocking(False)
        caller = _Caller(connection)
        self._callers[connection.fileno()] = caller
        self._selector.register(connection, selectors.EVENT_READ, self._on_caller)

    def _on_caller(self, fd: int, events: int) -> None:
        caller = self._callers.get(fd)
        if caller is None:
            return
        if events & selectors.EVENT_WRITE:
            self._flush(caller)
        if events & selectors.EVENT_READ and fd in self._callers:
            self._read(caller)

    def _read(self, caller: _Caller) -> None:
        try:
            data = caller.connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or caller.asked:
            self._drop(caller)  # it has left, or says more than one message
            return
        caller.received += data
        try:
            asked = _complete(caller.received)
        except ValueError:
            self._drop(caller)
            return
        if asked is not None:
            self._pass_on(caller, *asked)

    def _pass_on(self, caller: _Caller, calls: list[dict[str, str]], settled: bool) -> None:
        caller.asked = True
        caller.owed = len(calls)
        caller.received.clear()
        idle = not self._open
        for place, call in enumerate(calls):
            self._made += 1
            self._open[self._made] = (caller, place)
            last = place == len(calls) - 1
            self._send(frames.encode_json(b"Q", number=self._made, settled=settled and last, **call))
        if idle:
            self._tell(True)

    def _tell(self, waiting: bool) -> None:
        run = self._run()
        if run is not None:
            run.waits(waiting)

    # -- connections

    def _flush(self, caller: _Caller) -> None:
        if caller.gone:
            return
        try:
            caller.flush()
        except OSError:
            self._drop(caller)
            return
        if caller.queue:
            self._selector.modify(
                caller.connection, selectors.EVENT_READ | selectors.EVENT_WRITE, self._on_caller
            )
        elif not caller.owed:
            self._drop(caller)
        else:
            self._selector.modify(caller.connection, selectors.EVENT_READ, self._on_caller)

    def _drop(self, caller: _Caller) -> None:
        """Close a connection; results that still come for it are nobody's."""
        if caller.gone:
            return
        caller.gone = True
        caller.queue.clear()
        del self._callers[caller.connection.fileno()]
        self._selector.unregister(caller.connection)
        caller.connection.close()


class _Caller:
    """One connection of a program."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = bytearray()
        self.queue: deque[memoryview] = deque()
        self.asked = False
        self.owed = 0
        """Calls that have no result yet."""
        self.gone = False

    def send(self, data: bytes) -> None:
        """Queue data; nothing is sent before `flush`."""
        if data and not self.gone:
            self.queue.append(memoryview(data))

    def flush(self) -> None:
        """Send what the socket takes; OSError when the program is gone."""
        while self.queue:
            try:
                sent = self.connection.send(self.queue[0])
            except BlockingIOError:
                return
            if sent == len(self.queue[0]):
                self.queue.popleft()
            else:
                self.queue[0] = self.queue[0][sent:]


def _complete(received: bytearray) -> tuple[list[dict[str, str]], bool] | None:
    """The calls of a whole message; None while it is incomplete. ValueError for anything else."""
    if len(received) < _LENGTH_BYTES:
        return None
    length = int.from_bytes(received[:_LENGTH_BYTES], "big")
    if length > MAX_MESSAGE_BYTES or len(received) > _LENGTH_BYTES + length:
        raise ValueError("too long")
    if len(received) < _LENGTH_BYTES + length:
        return None
    try:
        asked = frames.decode_json(bytes(received[_LENGTH_BYTES:]))
    except FrameError as error:
        raise ValueError(str(error)) from None
    calls = asked.get("calls")
    if not isinstance(calls, list) or not 0 < len(calls) <= MAX_BATCH:
        raise ValueError("no list of calls")
    found = []
    for call in calls:
        tool, text = (call.get("tool"), call.get("input")) if isinstance(call, dict) else (None, None)
        if not isinstance(tool, str) or not isinstance(text, str):
            raise ValueError("not a call")
        found.append({"tool": tool, "input": text})
    return found, asked.get("settled") is True
