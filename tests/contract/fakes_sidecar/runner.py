"""A runner that says whatever a test wants, honest or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

PIECE_BYTES = 256 << 10

Script = Callable[["FakeRunner"], Awaitable[None]]

EXIT_OK: dict[str, Any] = {
    "exitCode": 0,
    "signal": None,
    "timedOut": False,
    "cancelled": False,
    "cpuSeconds": 0.01,
    "maxRssBytes": 9_000_000,
    "wallSeconds": 0.012,
}


def frame(kind: str, payload: bytes | dict[str, Any] = b"{}") -> bytes:
    """One frame; a dict becomes JSON."""
    data = json.dumps(payload).encode() if isinstance(payload, dict) else payload
    return kind.encode() + len(data).to_bytes(4, "big") + data


def listing(files: dict[str, bytes], *skipped: tuple[str, str]) -> list[bytes]:
    """L for each file in order, and Z."""
    listed = [frame("L", {"path": path, "bytes": len(files[path])}) for path in sorted(files)]
    left_out = [{"path": path, "reason": reason} for path, reason in skipped]
    return [*listed, frame("Z", {"skipped": left_out, "skippedCount": len(left_out)})]


def pieces(data: bytes) -> list[bytes]:
    """D frames."""
    return [frame("D", data[start : start + PIECE_BYTES]) for start in range(0, len(data), PIECE_BYTES)]


class FakeRunner:
    """One connection to the sidecar's socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.job: dict[str, Any] = {}
        self.inputs: dict[str, bytes] = {}
        self.read_only: list[str] = []
        self.asked: list[int] = []
        """Places of the files the sidecar has asked for."""
        self.code = b""
        self.stdin = b""
        self.goes = 0

    @classmethod
    async def connect(cls, path: str) -> FakeRunner:
        """Connect as the real runner does: again and again until the sidecar listens."""
        for _ in range(200):
            try:
                return cls(*await asyncio.open_unix_connection(path))
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(0.01)
        raise TimeoutError("the sidecar does not listen")

    async def send(self, *frames: bytes) -> None:
        self._writer.write(b"".join(frames))
        await self._writer.drain()

    async def warm_up(self) -> None:
        """H and W."""
        await self.send(frame("H", {"protocol": 1, "languages": ["py", "js"]}), frame("W", {"preloaded": []}))

    async def read(self) -> tuple[str, bytes]:
        """The next frame from the sidecar; IncompleteReadError when it hung up."""
        head = await self._reader.readexactly(5)
        return chr(head[0]), await self._reader.readexactly(int.from_bytes(head[1:], "big"))

    async def take_job(self) -> None:
        """R, C and I; not yet confirmed."""
        kind, payload = await self.read()
        assert kind == "R", kind
        self.job = json.loads(payload)
        for _ in range(self.job.get("inputs", 0)):
            await self._take_input()
        code, stdin = bytearray(), bytearray()
        while len(code) < self.job["codeBytes"]:
            kind, payload = await self.read()
            assert kind == "C", kind
            code += payload
        while len(stdin) < self.job["stdinBytes"]:
            kind, payload = await self.read()
            assert kind == "I", kind
            stdin += payload
        self.code, self.stdin = bytes(code), bytes(stdin)

    async def _take_input(self) -> None:
        kind, payload = await self.read()
        assert kind == "N", kind
        named = json.loads(payload)
        data = bytearray()
        while len(data) < named["bytes"]:
            kind, payload = await self.read()
            assert kind == "D", kind
            assert 0 < len(payload) <= PIECE_BYTES
            data += payload
        self.inputs[named["path"]] = bytes(data)
        if named["readOnly"]:
            self.read_only.append(named["path"])

    async def prepare(self) -> None:
        """Take the job, confirm it, wait for G."""
        await self.take_job()
        await self.send(frame("P"))
        kind, _payload = await self.read()
        assert kind == "G", kind
        self.goes += 1

    async def finish(self, stdout: bytes = b"", stderr: bytes = b"", **exit_fields: Any) -> None:
        """O, E and X, as they differ from an untroubled end."""
        frames = [frame("O", stdout[i : i + 65536]) for i in range(0, len(stdout), 65536)]
        frames += [frame("E", stderr[i : i + 65536]) for i in range(0, len(stderr), 65536)]
        await self.send(*frames, frame("X", {**EXIT_OK, **exit_fields}))

    async def run(self, stdout: bytes = b"", stderr: bytes = b"", **exit_fields: Any) -> None:
        """A whole honest run."""
        await self.warm_up()
        await self.prepare()
        await self.send(frame("S"))
        await self.finish(stdout, stderr, **exit_fields)

    async def finish_with(
        self, files: dict[str, bytes], *skipped: tuple[str, str], **exit_fields: Any
    ) -> None:
        """X, L for each file, Z: an honest end with files."""
        await self.send(frame("X", {**EXIT_OK, **exit_fields}), *listing(files, *skipped))

    async def hand_over(self, files: dict[str, bytes]) -> None:
        """Answer every question about the listed files, for ever."""
        contents = [files[path] for path in sorted(files)]
        while True:
            kind, payload = await self.read()
            assert kind == "T", kind
            index = json.loads(payload)["index"]
            self.asked.append(index)
            await self.send(*pieces(contents[index]))

    async def hung_up(self) -> bool:
        """Wait for the sidecar to close the connection."""
        try:
            async with asyncio.timeout(5):
                while await self._reader.read(65536):
                    pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self._writer.transport.abort()
