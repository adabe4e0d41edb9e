"""How fast the stores are on this machine, and the memory they take: the numbers in docs/object-store.md.

usage: python tests/store/measure.py [ROUNDS]
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from store.bucket import Bucket, tidy
from store.exchange import exchange_with
from store.servers import Running, serving
from store.target import Signer

READ_BYTES = 45_000_000
WRITTEN_BYTES = 150_000_000
PART_BYTES = 8 << 20
IDLE_SECONDS = 5


def resident_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


async def seconds_of(action: Callable[[], Awaitable[None]]) -> float:
    """How long it took."""
    began = time.monotonic()
    await action()
    return time.monotonic() - began


async def read(bucket: Bucket, key: str) -> None:
    """GET in pieces; nothing is kept."""
    count = 0
    async with bucket.exchange.open("GET", bucket.signer.url("GET", key)) as response:
        async for chunk in response.content.iter_any():
            count += len(chunk)
    assert count == READ_BYTES


async def write(bucket: Bucket, key: str, part: bytes) -> None:
    """An upload in parts, one after the other."""
    upload = await bucket.begin(key)
    etags: dict[int, str] = {}
    left = WRITTEN_BYTES
    while left:
        number, size = len(etags) + 1, min(left, len(part))
        etags[number] = await bucket.put_part(key, upload, number, part[:size])
        left -= size
    await bucket.completed(key, upload, etags)


async def small(bucket: Bucket, prefix: str) -> float:
    """Median of a PUT and a GET of 1 kB, in milliseconds."""
    took = []
    for number in range(50):

        async def both(key: str = f"{prefix}/small-{number}") -> None:
            await bucket.put(key, b"x" * 1000)
            await bucket.read(key)

        took.append(await seconds_of(both))
    return statistics.median(took) * 1000


async def measure(running: Running, rounds: int) -> str:
    """One row of the table."""
    await asyncio.sleep(IDLE_SECONDS)
    idle = resident_mib(running.pid)
    async with exchange_with(running.target) as exchange:
        bucket = Bucket(exchange, Signer(running.target))
        await bucket.put("measure/read", os.urandom(READ_BYTES))
        part = os.urandom(PART_BYTES)
        reads = [await seconds_of(lambda: read(bucket, "measure/read")) for _round in range(rounds)]
        writes = [
            await seconds_of(lambda: write(bucket, "measure/written", part)) for _round in range(rounds)
        ]
        both = await small(bucket, "measure")
        after = resident_mib(running.pid)
        await tidy(bucket, "measure")
    times = f"{statistics.median(reads):.2f} | {statistics.median(writes):.2f} | {both:.1f}"
    return f"| {running.target.name} | {times} | {idle:.0f} | {after:.0f} |"


def main() -> None:
    """Measure one store after the other."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    columns = ["Store", "GET of 45 MB, s", "150 MB in parts of 8 MiB, s", "PUT and GET of 1 kB, ms"]
    print(f"| {' | '.join([*columns, 'idle, MiB', 'after it, MiB'])} |")
    print("|---|---|---|---|---|---|")
    for name in ("versitygw", "minio"):
        with tempfile.TemporaryDirectory() as folder, serving(name, Path(folder)) as running:
            print(asyncio.run(measure(running, rounds)), flush=True)


if __name__ == "__main__":
    main()
