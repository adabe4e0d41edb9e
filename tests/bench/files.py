"""Runs with files attached, many downloads at once, large uploads."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

from bench.figures import Scenario, milliseconds, percentile, summary
from bench.memory import MemoryWatch
from bench.system import Caller, System, wrong
from bench.uploads import Stored, remove, send
from e2e.frontend import FrontEnd

SLEEP_SECONDS = 10
NAME = "attached.bin"
DOWNLOADS, DOWNLOAD_BYTES = 50, 64 << 10
UPLOAD_BYTES = 150_000_000


def slow_exec(system: System, name: str, size: int, n: int) -> dict[str, Scenario]:
    """What a program that sleeps ten seconds takes longer than that, with `size` bytes attached (0: no file).

    The file is uploaded once, before; every run fetches it. Each call has a connection of its own, as
    LibreChat's have.
    """
    file = send(system.front_end, NAME, size) if size else None
    caller = Caller(system.front_end, keep=False)
    code, expected = sleeping(size), f"{size}\n"
    seconds: list[float] = []
    errors: list[str] = []
    for _ in range(n):
        system.rest()
        run = caller.call(code, files=[file.reference()] if file else [])
        fault = wrong(run, expected)
        if fault:
            errors.append(fault)
        else:
            seconds.append(run.seconds - SLEEP_SECONDS)
    if file:
        remove(system.front_end, file)
    return {name: summary(seconds, errors)}


def sleeping(size: int) -> str:
    """A program that sleeps and then prints the size of what is attached."""
    told = f"os.path.getsize({NAME!r})" if size else "0"
    return f"import os, time\ntime.sleep({SLEEP_SECONDS})\nprint({told})"


def download_50(system: System, n: int) -> dict[str, Scenario]:
    """A run makes fifty files, and all are downloaded at one moment, each over a connection of its own.

    Connecting is included. `total` is from that moment to the last byte of the last one.
    """
    seconds: list[float] = []
    totals: list[float] = []
    errors: list[str] = []
    for _ in range(n):
        system.rest()
        caller = Caller(system.front_end, keep=False)
        made = caller.call(making(DOWNLOADS, DOWNLOAD_BYTES))
        files = made.answer.parsed.get("files", [])
        if wrong(made, "made\n") or len(files) != DOWNLOADS:
            errors.append(wrong(made, "made\n") or f"{len(files)} files came back")
            continue
        took, total = fetch_all(system.front_end, made.answer.session, files, errors)
        seconds += took
        totals.append(total)
    result = summary(seconds, errors) | {"rounds": n, "file_kib": DOWNLOAD_BYTES >> 10}
    if totals:
        result |= {f"total_p{share}_ms": milliseconds(percentile(totals, share)) for share in (50, 99)}
    return {"download_50_parallel": result}


def making(count: int, size: int) -> str:
    """A program that writes files of that size, each full of its own number."""
    return (
        f"for number in range({count}):\n"
        "    with open(f'file-{number}.bin', 'wb') as file:\n"
        f"        file.write(bytes([number]) * {size})\n"
        "print('made')"
    )


def fetch_all(
    front_end: FrontEnd, session: str, files: list[dict[str, Any]], errors: list[str]
) -> tuple[list[float], float]:
    """Download files at one moment: the seconds of each right one, and until the last."""
    gate = threading.Barrier(len(files))

    def fetch(file: dict[str, Any]) -> float | None:
        gate.wait()
        began = time.perf_counter()
        fault = fetched(front_end, session, file)
        if fault:
            errors.append(fault)
            return None
        return time.perf_counter() - began

    with ThreadPoolExecutor(len(files)) as threads:
        began = time.perf_counter()
        took = list(threads.map(fetch, files))
        total = time.perf_counter() - began
    return [seconds for seconds in took if seconds is not None], total


def fetched(front_end: FrontEnd, session: str, file: dict[str, Any]) -> str | None:
    """Download one file of `making`; what is wrong with it, if anything."""
    try:
        answer = front_end.call("GET", f"/v1/download/{session}/{file['id']}")
    except (OSError, HTTPException) as failure:
        return f"{file['name']}: {type(failure).__name__}: {failure}"
    number = int(file["name"].removeprefix("file-").removesuffix(".bin"))
    if answer.status != 200:
        return f"{file['name']}: status {answer.status}: {answer.body[:200]!r}"
    right = answer.body == bytes([number]) * DOWNLOAD_BYTES
    return None if right else f"{file['name']}: {len(answer.body)} bytes, not those of the program"


def upload_150(system: System, n: int) -> dict[str, Scenario]:
    """Uploads of 150 MB one after the other, and by how much the front end's memory grew at most."""
    seconds: list[float] = []
    grown: list[float] = []
    samples = 0
    for _ in range(n):
        system.rest()
        watch = MemoryWatch(system.front_end)
        with watch:
            file: Stored = send(system.front_end, NAME, UPLOAD_BYTES)
        remove(system.front_end, file)
        seconds.append(file.seconds)
        grown.append(watch.growth_mib())
        samples += watch.samples
    rate = UPLOAD_BYTES / 1e6 / percentile(seconds, 50)
    extra = {"growth_mib": max(grown), "samples": samples, "mb_per_second": round(rate, 1)}
    return {"upload_150mb": summary(seconds) | extra}
