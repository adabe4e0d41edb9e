"""Big files on their way through the front end, which runs in a process of its own, and how much it keeps."""

import asyncio
import hashlib
from pathlib import Path

from contract.fakes_api.apiserver import held
from contract.fakes_api.client import Connection
from contract.fakes_api.forms import END, TYPE, file, form
from contract.fakes_api.program import Program, program
from contract.fakes_api.store import FakeStore, object_store
from kubecoderun_crds import names

MEBIBYTE = 1024 * 1024
SIZE = 150 * MEBIBYTE
PIECE = bytes(range(256)) * (MEBIBYTE // 256)
ALLOWED = 32 * MEBIBYTE


def _settings(store: FakeStore) -> dict[str, str]:
    return {
        "KCR_STORE_ENDPOINT": store.url,
        "KCR_STORE_ACCESS_KEY": "access",
        "KCR_STORE_SECRET_KEY": "secret",
    }


async def _upload(front_end: Program, *, chunked: bool = False) -> dict[str, object]:
    head = file("big.bin", b"")[:-2]
    total = len(head) + SIZE + 2 + len(END)
    headers = {"Content-Type": TYPE}
    async with Connection("127.0.0.1", front_end.port) as connection:
        if chunked:
            await connection.send("POST", "/upload", b"", headers | {"Transfer-Encoding": "chunked"})
        else:
            await connection.send("POST", "/upload", b"", headers | {"Content-Length": str(total)})

        async def write(data: bytes) -> None:
            connection.writer.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            await connection.writer.drain()

        await write(head)
        for _ in range(SIZE // len(PIECE)):
            await write(PIECE)
        await write(b"\r\n" + END)
        if chunked:
            connection.writer.write(b"0\r\n\r\n")
        reply = await connection.reply()
        assert reply.status == 200, reply.raw
        return reply.json


def _assert_is_whole(content: bytes) -> None:
    assert len(content) == SIZE
    assert hashlib.sha256(content).digest() == hashlib.sha256(PIECE * (SIZE // len(PIECE))).digest()


async def test_an_upload_of_150_megabytes(tmp_path: Path) -> None:
    async with object_store() as store, program(tmp_path, **_settings(store)) as front_end:
        async with Connection(
            "127.0.0.1", front_end.port
        ) as connection:  # what is loaded once does not count
            await connection.send("POST", "/upload", form(file("small")), {"Content-Type": TYPE})
            assert (await connection.reply()).status == 200
        store.objects.clear()
        for chunked in (False, True):
            front_end.forget_peak()
            before, _ = front_end.memory()
            await _upload(front_end, chunked=chunked)
            _, peak = front_end.memory()
            assert peak - before < ALLOWED, f"{(peak - before) / MEBIBYTE:.1f} MiB"
            ((_, content),) = store.objects.items()
            _assert_is_whole(content)
            store.objects.clear()


async def test_downloads_of_150_megabytes_some_of_them_slow(tmp_path: Path) -> None:
    session, stored = "s" * 21, "s" * 21
    async with object_store() as store, program(tmp_path, **_settings(store)) as front_end:
        entry = {"id": stored, "path": "big.bin", "bytes": SIZE}
        front_end.api.put(names.SESSION_PLURAL, held(session, entry, expiresAt="2099-01-01T00:00:00Z"))
        store.objects[f"/kubecoderun/kubecoderun/kubecoderun/{session}/{stored}"] = PIECE * (
            SIZE // len(PIECE)
        )
        path = f"/download/{session}/{stored}"
        async with Connection("127.0.0.1", front_end.port) as connection:
            await connection.send("HEAD", path)
            assert (await connection.reply("HEAD")).status == 200
        front_end.forget_peak()
        before, _ = front_end.memory()
        slow = [Connection("127.0.0.1", front_end.port) for _ in range(8)]
        for one in slow:
            await one.__aenter__()
            await one.send("GET", path)
            await one.reader.readuntil(b"\r\n\r\n")
            one.writer.transport.pause_reading()
        async with Connection("127.0.0.1", front_end.port) as connection:
            await connection.send("GET", path)
            await connection.reader.readuntil(b"\r\n\r\n")
            digest, left = hashlib.sha256(), SIZE
            while left:
                piece = await connection.reader.read(MEBIBYTE)
                assert piece
                digest.update(piece)
                left -= len(piece)
        _, peak = front_end.memory()
        assert digest.digest() == hashlib.sha256(PIECE * (SIZE // len(PIECE))).digest()
        assert peak - before < ALLOWED, f"{(peak - before) / MEBIBYTE:.1f} MiB"
        for one in slow:
            one.abort()
        await asyncio.sleep(0)
