"""Asks the leading operator what a program has written so far; the only way to a run in progress.

All operator replicas are behind one name. The one that answered last is asked first; those that do not serve
the session say so at once.
"""

import asyncio
import socket
import time
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from kubecoderun_api import log
from kubecoderun_api.metrics import Metrics
from kubecoderun_crds.relay import HEADER, Glance, Question, RelayError, signature

_CONNECT_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 3.0
"""Beyond the time that the question itself allows."""
_MOST_BYTES: Final = 256 * 1024


class Relay:
    """The client of all operators. Without an address it knows nothing of any run."""

    def __init__(self, url: str | None, key: bytes | None, metrics: Metrics) -> None:
        address = urlsplit(url or "")
        self._host, self._port = address.hostname, address.port or 80
        self._key = key
        self._metrics = metrics
        self._last = ""
        self._http: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Needs a running event loop."""
        self._http = aiohttp.ClientSession(auto_decompress=False)

    async def close(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.close()

    async def look(self, question: Question) -> Glance | None:
        """None: nobody can tell now, perhaps later."""
        if self._host is None or self._key is None or self._http is None:
            return None
        for address in await self._addresses():
            found = await self._ask(address, question)
            if found is not None:
                self._last = address
                return found
        return None

    async def _addresses(self) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError:
            return [self._last] if self._last else []
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        return sorted(addresses, key=lambda address: address != self._last)

    async def _ask(self, address: str, question: Question) -> Glance | None:
        assert self._http is not None
        assert self._key is not None
        target = question.target()
        host = f"[{address}]" if ":" in address else address
        timeout = aiohttp.ClientTimeout(
            total=question.wait_seconds + _ANSWER_SECONDS, sock_connect=_CONNECT_SECONDS
        )
        headers = {HEADER: signature(self._key, target, time.time())}
        try:
            async with self._http.get(
                f"http://{host}:{self._port}{target}", headers=headers, timeout=timeout
            ) as answer:
                self._metrics.relay_questions.labels(str(answer.status)).inc()
                if answer.status != 200:
                    if answer.status == 401:
                        log.event("relay_refused", level=log.ERROR, cause="the operator has another key")
                    return None
                return Glance.parse(await answer.content.read(_MOST_BYTES))
        except (aiohttp.ClientError, TimeoutError, OSError, RelayError) as error:
            self._metrics.relay_questions.labels("0").inc()
            log.event("relay_failed", level=log.DEBUG, cause=type(error).__name__)
            return None
