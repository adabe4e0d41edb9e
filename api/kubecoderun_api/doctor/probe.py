"""Tries the front end as LibreChat would, and notes what happens. The only part that talks to anybody."""

import asyncio
import secrets
import string
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Any, Final

import aiohttp

from kubecoderun_api.doctor import environment, tokens
from kubecoderun_api.doctor.checks import Seen, admits

_TIMEOUT: Final = aiohttp.ClientTimeout(total=180, sock_connect=5)
_NAME: Final = "doctor é.txt"
_SLOW_SECONDS: Final = 6
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
Json = dict[str, Any]


class Probe:
    """Tries one front end with the settings of one LibreChat."""

    def __init__(self, base: str, env: Mapping[str, str], *, slow: bool) -> None:
        """`base` without a slash at its end; `slow`: whether to run the program of six seconds."""
        self._base = base
        self._key = env.get(environment.KEY, "").strip()
        self._env = env
        self._slow = slow
        self._headers: dict[str, str] = {}
        self._http: aiohttp.ClientSession
        self.seen = Seen()

    async def run(self) -> Seen:
        """Try everything that can be tried; what breaks is noted."""
        # no environment of this process: the proxies are checked by what the .env says
        async with aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False) as self._http:
            if not await self._reach():
                return self.seen
            await self._credentials()
            if self._headers or admits(self.seen.without_credential):
                await self._try(self._program(), "a run")
                await self._try(self._files(), "files")
                if self._slow:
                    await self._try(self._silence(), "a run of six seconds")
        return self.seen

    async def _try(self, work: Any, what: str) -> None:
        try:
            await work
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
            self.seen.problems.append(f"The connection broke while trying {what} ({type(error).__name__}).")

    async def _reach(self) -> bool:
        try:
            async with self._http.get(f"{self._base}/health", allow_redirects=False) as answer:
                self.seen.redirected = answer.status in _REDIRECTS
                self.seen.ready = answer.status
                return not self.seen.redirected
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.seen.unreachable = _words(error)
            return False

    # --- who may call ----------------------------------------------------------------------------

    async def _credentials(self) -> None:
        seen = self.seen
        seen.without_credential = await self._listing({})
        if self._key:
            by_key = {"X-API-Key": self._key}
            seen.with_key = await self._listing(by_key)
            if admits(seen.with_key):
                self._headers = by_key
        if environment.uses_tokens(self._env):
            try:
                by_token = {"Authorization": f"Bearer {tokens.sign(self._env)}"}
            except tokens.TokenError as error:
                seen.token_problem = str(error)
            else:
                seen.with_token = await self._listing(by_token)
                if admits(seen.with_token):
                    self._headers = by_token

    async def _listing(self, headers: dict[str, str]) -> int | None:
        """Status of asking for the files of a session that does not exist."""
        nobody = "".join(secrets.choice(string.ascii_lowercase) for _ in range(21))
        url = f"{self._base}/files/{nobody}"
        try:
            async with self._http.get(url, params={"detail": "summary"}, headers=headers) as answer:
                if not admits(answer.status):
                    with suppress(ValueError, aiohttp.ClientError, AttributeError):
                        self.seen.refusal = str((await answer.json()).get("message", ""))[:200]
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    # --- runs ------------------------------------------------------------------------------------

    async def _program(self) -> None:
        began = time.monotonic()
        answer, status = await self._exec("print(6 * 7)")
        seen = self.seen
        seen.run_status, seen.run_seconds = status, time.monotonic() - began
        seen.run_right = answer.get("stdout") == "42\n"
        if not seen.run_right:
            seen.run_says = str(answer.get("message") or answer.get("stderr") or "")[:300]

    async def _silence(self) -> None:
        """The longest time without a byte in a slow run."""
        body = {"lang": "py", "code": f"import time\ntime.sleep({_SLOW_SECONDS})\nprint('slept')"}
        moments = [time.monotonic()]
        async with self._http.post(f"{self._base}/exec", json=body, headers=self._headers) as answer:
            moments.append(time.monotonic())
            moments += [time.monotonic() async for _ in answer.content.iter_any()]
            if answer.status == 200:
                self.seen.longest_silence = max(after - before for before, after in pairwise(moments))

    async def _exec(self, code: str, **fields: Any) -> tuple[Json, int]:
        body = {"lang": "py", "code": code, **fields}
        async with self._http.post(f"{self._base}/exec", json=body, headers=self._headers) as answer:
            try:
                found = await answer.json()
            except (ValueError, aiohttp.ContentTypeError):
                return {"message": "The answer is not JSON."}, answer.status
            return (found if isinstance(found, dict) else {}), answer.status

    # --- files -----------------------------------------------------------------------------------

    async def _files(self) -> None:
        content = secrets.token_hex(2048).encode()
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("file", content, filename=_NAME, content_type="text/plain")
        began = time.monotonic()
        async with self._http.post(f"{self._base}/upload", data=form, headers=self._headers) as answer:
            self.seen.upload_status = answer.status
            told = await answer.json() if answer.status < 300 else {}
        self.seen.upload_seconds = time.monotonic() - began
        if not told:
            return
        session, file = told["session_id"], told["files"][0]["fileId"]
        try:
            await self._list(session, file)
            await self._read(session, file, content)
            await self._download(session, file, content)
        finally:
            async with self._http.delete(f"{self._base}/files/{session}/{file}", headers=self._headers):
                pass

    async def _list(self, session: str, file: str) -> None:
        seen, url = self.seen, f"{self._base}/files/{session}"
        began = time.monotonic()
        async with self._http.get(url, params={"detail": "full"}, headers=self._headers) as answer:
            told = await answer.json()
            hint = answer.headers.get("Keep-Alive", "").partition("timeout=")[2].partition(",")[0].strip()
            seen.keep_alive = int(hint) if hint.isdigit() else None
            seen.listing_closes = answer.headers.get("Connection", "").lower() == "close"
        seen.listing_seconds = time.monotonic() - began
        seen.listed = any(
            entry.get("name", "").startswith(f"{session}/{file}")
            and entry.get("metadata", {}).get("original-filename") == _NAME
            for entry in told
        )

    async def _read(self, session: str, file: str, content: bytes) -> None:
        reference = {"id": file, "session_id": session, "name": _NAME}
        answer, _ = await self._exec(f"print(open({_NAME!r}).read(), end='')", files=[reference])
        self.seen.read_by_program = answer.get("stdout") == content.decode()

    async def _download(self, session: str, file: str, content: bytes) -> None:
        seen, url = self.seen, f"{self._base}/download/{session}/{file}"
        headers = self._headers | {"Accept-Encoding": "gzip, compress, deflate, br"}
        began = time.monotonic()
        async with self._http.get(url, headers=headers) as answer:
            seen.download_status = answer.status
            seen.download_encoding = answer.headers.get("Content-Encoding", "")
            seen.download_right = await answer.read() == content
        seen.download_seconds = time.monotonic() - began


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return "its TLS certificate or its TLS is not accepted"
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error is not None:
        return str(error.os_error.strerror or error.os_error).lower()
    return type(error).__name__


def look(base: str, env: Mapping[str, str], *, slow: bool) -> Seen:
    """Try everything, from outside of an event loop."""
    return asyncio.run(Probe(base, env, slow=slow).run())
