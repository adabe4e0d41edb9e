"""Hostile programs before a real sidecar, in a runner with the limits of a pod: its own user, a memory
cgroup, small file systems."""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from contract.fakes_sidecar.client import SESSION, Client, start
from contract.fakes_sidecar.pair import WHY_IMPOSSIBLE
from contract.fakes_sidecar.program import program as sidecar_process
from contract.fakes_sidecar.store import fake_store
from hostile.cage import cage, program
from hostile.cases import CASES, Case
from kubecoderun_sidecar.protocol import (
    FileSlot,
    InlineCode,
    Limits,
    OutputTarget,
    PrepareRequest,
    SessionRef,
)

CGROUPS = Path("/sys/fs/cgroup/memory")
PYTHON = "/usr/bin/python3"
UID = 54_321
LIMITS = cage("")["limits"]
ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.skipif(WHY_IMPOSSIBLE is not None, reason=str(WHY_IMPOSSIBLE)),
    pytest.mark.skipif(
        not (CGROUPS / "memory.limit_in_bytes").exists() or not os.access(CGROUPS, os.W_OK),
        reason="needs cgroup v1 that can be written to",
    ),
    pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason="needs a Python that all users can run"),
]


@asynccontextmanager
async def caged(base: Path) -> AsyncGenerator[Client]:
    """A pod in all but name: sidecar and runner, ready."""
    cgroup = CGROUPS / base.name
    cgroup.mkdir()
    (cgroup / "memory.limit_in_bytes").write_text(str(256 << 20))
    for name in ("data", "channel", "bin"):
        (base / name).mkdir()
    (base / "channel").chmod(0o777)
    (base / "bin" / "python").symlink_to(PYTHON)
    # Where the checkout lies below /tmp, the runner would not find itself in a /tmp of its own.
    shutil.copytree(ROOT / "runner" / "kubecoderun_runner", base / "runner" / "kubecoderun_runner")
    steps = (
        f"echo $$ > {cgroup}/cgroup.procs",
        f"mount --bind {cgroup} {CGROUPS}",
        f"mount -t tmpfs -o size=48m,mode=777 data {base}/data",
        "mount -t tmpfs -o size=48m,mode=1777 tmp /tmp",
        f"exec setpriv --reuid={UID} --regid={UID} --clear-groups -- {PYTHON} -m kubecoderun_runner",
    )
    try:
        async with sidecar_process(base / "channel", KCR_RUNTIME_UID=str(UID)) as sidecar:
            runner = await asyncio.create_subprocess_exec(
                *(
                    "unshare",
                    "--pid",
                    "--fork",
                    "--kill-child",
                    "--mount-proc",
                    "sh",
                    "-c",
                    " && ".join(steps),
                ),
                env={
                    "PATH": f"{base}/bin:/usr/bin:/bin",
                    "PYTHONPATH": f"{base}/runner",
                    "KCR_CHANNEL": sidecar.channel,
                    "KCR_WORKSPACE": f"{base}/data",
                    "KCR_PROCESSES": str(LIMITS["maxProcesses"]),
                    "KCR_OPEN_FILES": str(LIMITS["maxOpenFiles"]),
                },
            )
            try:
                client = await sidecar.ready()
                yield client
                client.close()
            finally:
                runner.kill()
                await runner.wait()
    finally:
        for _ in range(100):
            try:
                cgroup.rmdir()
                break
            except OSError:  # what was killed is still there
                await asyncio.sleep(0.1)


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder that every user can enter, not below /tmp, which the runner has one of its own of."""
    folder = Path(f"/var/tmp/kcr-{uuid.uuid4().hex[:8]}")
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("case", [one for one in CASES if not one.needs_pod], ids=lambda one: one.program)
async def test_a_hostile_program_ends_as_it_should(base: Path, case: Case) -> None:
    limits = Limits(case.seconds, 65536, 64, LIMITS["maxFileBytes"], 1 << 29, LIMITS["maxPrintedBytes"])
    code = InlineCode(program(case.program))
    order = PrepareRequest(SessionRef("n", "n", SESSION), "py", code, limits=limits)
    async with fake_store() as store, caged(base) as client:
        assert (await client.request("POST", "/v1/prepare", order.to_json())).status == 200
        slots = tuple(FileSlot(f"p{number:020d}", store.url(f"slot{number}")) for number in range(64))
        result = await client.result(start(outputs=OutputTarget("p", None, slots)))
    stdout, stderr = result.stdout.text or "", result.stderr.text or ""
    assert not case.faults(result.reason, stdout, stderr, [file.path for file in result.files]), result
