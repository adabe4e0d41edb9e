"""What a proxy between LibreChat and the front end does to the two cures (docs/librechat.md).

`Connection: close` ends at the proxy. So either the heartbeat has to get through, or the proxy has to close
connections by itself. All cases run at the same time, once.
"""

import asyncio
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from client.conftest import Install
from client.hangup_cases import CURES, EARLIEST, LATEST_SECONDS, RUN_SECONDS
from client.node_program import run_node
from client.packages import HTTP
from client.sleeping import finish_later
from contract.fakes_api.apiserver import api_server
from contract.fakes_api.program import free_port, started

Result = dict[str, Any]
PROXIES = ("nginx", "haproxy")
GZIP = "gzip on; gzip_types application/json; gzip_proxied any; gzip_min_length 0;"


def nginx(folder: Path, port: int, upstream: int, extra: str) -> list[str]:
    """Writes a configuration; the command to run."""
    paths = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events { worker_connections 64; }\n"
        f"http {{ access_log off; {paths} {extra}\n"
        f"  server {{ listen 127.0.0.1:{port};\n"
        f"    location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; }} }} }}\n"
    )
    return ["nginx", "-e", f"{folder}/error.log", "-c", str(folder / "nginx.conf")]


def haproxy(folder: Path, port: int, upstream: int, extra: str) -> list[str]:
    """Writes a configuration; the command to run."""
    (folder / "haproxy.cfg").write_text(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
        f"frontend front\n  bind 127.0.0.1:{port}\n  {extra}\n  default_backend back\n"
        f"backend back\n  server one 127.0.0.1:{upstream}\n"
    )
    return ["haproxy", "-db", "-q", "-f", str(folder / "haproxy.cfg")]


@dataclass(frozen=True)
class Case:
    """A proxy, what it is told, the front end behind it, and whether a long run survives."""

    id: str
    command: Callable[[Path, int, int, str], list[str]]
    extra: str
    cure: str
    survives: bool
    reused: bool = True


CASES = (
    Case("nginx swallows the closing", nginx, "", "close", False),
    Case("nginx lets the heartbeat through", nginx, "proxy_buffering off;", "heartbeat", True),
    Case("nginx closes by itself", nginx, "keepalive_timeout 0;", "close", True, reused=False),
    Case("nginx keeps the heartbeat to compress it", nginx, GZIP, "heartbeat", False),
    Case("nginx compresses without buffering", nginx, f"proxy_buffering off; {GZIP}", "heartbeat", True),
    Case("haproxy swallows the closing", haproxy, "", "close", False),
    Case("haproxy lets the heartbeat through", haproxy, "", "heartbeat", True),
    Case("haproxy closes by itself", haproxy, "option httpclose", "close", True, reused=False),
)


@pytest.fixture(scope="module")
def results(install: Install, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """What became of the run through each proxy."""
    missing = [name for name in PROXIES if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed (optional)")
    return asyncio.run(_play(str(install(HTTP)), tmp_path_factory.mktemp("proxies")))


async def _play(http: str, work: Path) -> dict[str, Result]:
    async with api_server() as api, AsyncExitStack() as stack:
        api.answer = lambda session: finish_later(api, session)
        ports: dict[str, int] = {}
        for cure in dict.fromkeys(case.cure for case in CASES):
            folder = work / cure
            folder.mkdir()
            ports[cure] = (await stack.enter_async_context(started(api, folder, **CURES[cure]))).port
        cases = []
        for number, case in enumerate(CASES):
            folder, port = work / str(number), free_port()
            folder.mkdir()
            command = case.command(folder, port, ports[case.cure], case.extra)
            process = await asyncio.create_subprocess_exec(*command)
            stack.push_async_callback(process.wait)
            stack.callback(process.terminate)
            await _listening(port)
            base = f"http://127.0.0.1:{port}/v1"
            cases.append({"id": case.id, "base": base, "axios": "axios-1.12.1", "timeout": 5000})
        order = {"http": http, "seconds": RUN_SECONDS, "key": "any", "cases": cases}
        played = await asyncio.to_thread(run_node, "hangup.cjs", order)
    return {result["id"]: result for result in played}


async def _listening(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


@pytest.mark.parametrize("case", CASES, ids=attrgetter("id"))
def test_proxy(results: dict[str, Result], case: Case) -> None:
    result = results[case.id]
    assert result["reused"] is case.reused, result
    if case.survives:
        assert "failed" not in result, result
        assert (result["status"], result["stdout"]) == (200, "woke\n")
    else:
        assert "socket hang up" in result["failed"]
        assert 5 * EARLIEST < result["ms"] / 1000 < 5 + LATEST_SECONDS
