"""A program and its files on their way from the sidecar to us."""

from __future__ import annotations

import errno
from typing import Final, Literal

from kubecoderun_runner.frames import FrameError, decode_json
from kubecoderun_runner.inputs import Inputs
from kubecoderun_runner.orders import InputFile, Order, parse_input
from kubecoderun_runner.workspace import SourceFile, free_bytes

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_PATH: Final = frozenset(
    {
        *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL),
        # What earlier programs may have done to folders.
        *(errno.EACCES, errno.EPERM),
    }
)


class UndeliverableError(Exception):
    """The files of a run do not fit, or one of them (`index`) cannot have its path."""

    def __init__(self, kind: Literal["inputs_too_large", "input_path"], index: int, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.index = index


class Delivery:
    """Takes the frames after R: input files (N, then D), code (C), standard input (I)."""

    def __init__(self, order: Order, folder: int, source: str) -> None:
        """`source`: the name wanted for the program's text."""
        self.order = order
        self.inputs = Inputs(folder, replace=order.again)
        self.stdin = bytearray()
        self._folder = folder
        self._wanted = source
        self._source: SourceFile | None = None
        self._begun = 0
        """Input files that have been announced."""
        self._room = order.input_bytes
        """Bytes that the files still to be announced may have."""
        self._code_left = order.code_bytes

    @property
    def complete(self) -> bool:
        """Everything has arrived."""
        return self._source is not None and not self._code_left and len(self.stdin) == self.order.stdin_bytes

    @property
    def source_name(self) -> str:
        """What the program's text is called: an input may have taken the name wanted for it."""
        return self._source.name if self._source is not None else ""

    def begin(self) -> None:
        """See whether there is room. UndeliverableError or OSError as for `take`."""
        if self.order.input_bytes and self.order.input_bytes > free_bytes(self._folder):
            raise UndeliverableError("inputs_too_large", 0, "the input files do not fit in the folder")
        self.take(b"", b"")

    def take(self, kind: bytes, payload: memoryview | bytes) -> None:
        """The next frame, or a piece of it. FrameError where it may not come; UndeliverableError when the
        files cannot be stored; OSError when nothing can."""
        try:
            self._take(kind, payload)
        except OSError as error:
            if error.errno in _FULL:
                message = "the input files do not fit in the folder"
                raise UndeliverableError("inputs_too_large", max(0, self._begun - 1), message) from None
            if kind == b"N" and error.errno in _NO_PATH:
                message = f"a file cannot be made: {error.strerror}"
                raise UndeliverableError("input_path", self._begun - 1, message) from None
            raise

    def close(self) -> None:
        """Everything is there: nothing more will be written."""
        if self._source is not None:
            self._source.close()

    def withdraw(self) -> None:
        """The program is over, or will not be started: its text goes, and what has not arrived whole."""
        self.inputs.withdraw()
        if self._source is not None:
            self._source.remove()

    def _take(self, kind: bytes, payload: memoryview | bytes) -> None:
        match kind:
            case b"":
                pass
            case b"N" if not self.inputs.left and self._begun < self.order.inputs:
                self._announce(parse_input(decode_json(bytes(payload))))
            case b"D" if len(payload) <= self.inputs.left:
                self.inputs.write(memoryview(payload))
            case b"C" if self._source is not None and len(payload) <= self._code_left:
                self._code_left -= len(payload)
                self._source.write(memoryview(payload))
            case b"I" if self._source is not None:
                self.stdin += payload
                if len(self.stdin) > self.order.stdin_bytes:
                    raise FrameError("more standard input than announced")
            case _:
                raise FrameError(f"frame {kind!r} where it may not come")
        self._go_on()

    def _announce(self, file: InputFile) -> None:
        self._begun += 1
        self._room -= file.bytes
        if self._room < 0:
            raise FrameError("more bytes of input files than announced")
        self.inputs.begin(file)

    def _go_on(self) -> None:
        """Code comes when all inputs are there; then its file can be made, as an input may want the name."""
        if self._source is None and self._begun == self.order.inputs and not self.inputs.left:
            self._source = SourceFile(self._folder, self._wanted)
