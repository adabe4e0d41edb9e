"""The suite itself, as a person runs it: at a store that cannot do everything it says what is missing."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from built import NotBuiltError
from store.bucket import Bucket
from store.exchange import exchange_with
from store.servers import serving
from store.target import Signer, Target

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path("tests") / "store"
MINUTES = 3


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The store that does the work."""
    try:
        with serving("versitygw", tmp_path_factory.mktemp("suite")) as running:
            yield running.target
    except NotBuiltError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@asynccontextmanager
async def lacking(ability: str, behind: Target) -> AsyncIterator[str]:
    """The address of a store without one ability: passes all else on, with the Host that was signed for."""

    async def handle(request: web.Request) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name != "Transfer-Encoding"}
        if ability == "forms" and request.content_type == "multipart/form-data":
            return web.Response(status=501, text="<Error><Code>NotImplemented</Code><Message/></Error>")
        if ability == "ranges":
            headers.pop("Range", None)
        url = URL(f"{behind.endpoint}{request.raw_path}", encoded=True)
        body = await request.read()
        async with http.request(request.method, url, headers=headers, data=body) as answer:
            kept = {
                name: value for name, value in answer.headers.items() if name not in ("Date", "Connection")
            }
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", handle)
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def run_suite(endpoint: str, target: Target, *files: str, **others: str) -> tuple[int, str]:
    """pytest's exit status and output, for some files of the suite against the store at `endpoint`."""
    environment = {
        **os.environ,
        "KCR_STORE_ENDPOINT": endpoint,
        "KCR_STORE_BUCKET": target.bucket,
        "KCR_STORE_ACCESS_KEY": target.access_key,
        "KCR_STORE_SECRET_KEY": target.secret_key,
        **others,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"),
        *(str(FOLDER / file) for file in files),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(MINUTES * 60):
            output, _nothing = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def left_over(target: Target) -> list[str]:
    """Keys in the bucket."""
    async with exchange_with(target) as exchange:
        return list((await Bucket(exchange, Signer(target)).listing("")).sizes)


async def test_what_a_setting_avoids(behind: Target) -> None:
    async with lacking("forms", behind) as endpoint:
        status, output = await run_suite(endpoint, behind, "test_forms.py", "test_removal.py")
    assert status == 1, output
    name = endpoint.removeprefix("http://")
    verdict = output.rstrip().splitlines()[-1]
    assert verdict.startswith(f"{name}: works for KubeCodeRun with KCR_STORE_UPLOADS=put (")
    assert "status 501 (NotImplemented" in output
    assert "KubeCodeRun needs POST policies so that a pod can upload" in output
    assert "KCR_STORE_UPLOADS=put avoids it." in output
    assert await left_over(behind) == []


async def test_what_nothing_avoids(behind: Target) -> None:
    async with lacking("ranges", behind) as endpoint:
        status, output = await run_suite(endpoint, behind, "test_ranges.py", "test_removal.py")
    assert status == 1, output
    verdict = output.rstrip().splitlines()[-1]
    assert ": does NOT work for KubeCodeRun (" in verdict
    assert verdict.endswith("missing: GET of byte ranges)")
    assert "No setting avoids it." in output
    assert await left_over(behind) == []


async def test_a_store_that_does_it_all(behind: Target) -> None:
    async with lacking("nothing", behind) as endpoint:
        status, output = await run_suite(endpoint, behind, "test_objects.py", "test_listing.py")
    assert status == 0, output
    assert ": works for KubeCodeRun (" in output
    assert behind.secret_key not in output
    assert await left_over(behind) == []


async def test_nothing_at_that_address(behind: Target) -> None:
    async with lacking("nothing", behind) as endpoint:
        pass
    status, output = await run_suite(endpoint, behind, "test_removal.py")
    assert status == 1, output
    assert ": does NOT work for KubeCodeRun (" in output
    assert "ClientConnectorError" in output


async def test_bad_settings_are_told_in_one_line(behind: Target) -> None:
    status, output = await run_suite("", behind, "test_removal.py", KCR_STORE_ENDPOINT="s3.example.org")
    assert status == 2, output
    assert "KCR_STORE_ENDPOINT must be http(s)://host[:port]" in output
