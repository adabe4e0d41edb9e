"""The doctor as a program, against front ends as programs: it finds what is wrong and how to mend it."""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from contract.fakes_api.apiserver import FakeApiServer, api_server, succeeded
from contract.fakes_api.program import REPOSITORY, started
from contract.fakes_api.store import FakeStore, object_store

KEY = "the-key-of-librechat"
Json = dict[str, Any]


@dataclass
class Told:
    """What the doctor printed, and its exit status."""

    status: int
    findings: list[Json]
    text: str

    def level(self, check: str) -> str:
        """The worst level of a check."""
        order = ["ok", "note", "warning", "failure"]
        return max((found["level"] for found in self.findings if found["check"] == check), key=order.index)

    def failures(self) -> set[str]:
        return {found["check"] for found in self.findings if found["level"] == "failure"}

    def do(self, check: str) -> str:
        """What to change, of the worst finding."""
        worst = self.level(check)
        return " ".join(f["do"] for f in self.findings if (f["check"], f["level"]) == (check, worst))


async def doctor(folder: Path, env: dict[str, str], *arguments: str) -> Told:
    """Run it with that .env."""
    file = folder / "librechat.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in env.items()))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kubecoderun_api.doctor", "--env", str(file), "--json", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=REPOSITORY,
    )  # fmt: skip
    out, err = (data.decode() for data in await asyncio.wait_for(process.communicate(), 60))
    assert process.returncode is not None
    if process.returncode == 2:
        return Told(2, [], err)
    document = json.loads(out)
    assert document["ok"] == (process.returncode == 0)
    assert "Traceback" not in err, err
    return Told(process.returncode, document["findings"], out)


def plays(store: FakeStore, api: FakeApiServer) -> Callable[[Json], Json | None]:
    """The programs that the doctor runs, as pods would."""

    def answer(session: Json) -> Json | None:
        request = session["spec"]["request"]
        if "sleep" in request["code"]:
            loop = asyncio.get_running_loop()
            loop.call_later(6, api.finish, session["metadata"]["name"], succeeded("slept\n"))
            return None
        if "inputs" in request:
            return succeeded(store.files[request["inputs"][0]["id"]].decode())
        return succeeded("42\n")

    return answer


@asynccontextmanager
async def front_end(folder: Path, **settings: str) -> AsyncIterator[str]:
    """The address of a front end that knows KEY, in a process of its own."""
    (folder / "keys").write_text(f"{KEY}\n")
    async with api_server() as api, object_store() as store:
        api.answer = plays(store, api)
        chosen = {
            "KCR_AUTH": "keys",
            "KCR_API_KEYS_FILE": str(folder / "keys"),
            "KCR_STORE_ENDPOINT": store.url,
            "KCR_STORE_ACCESS_KEY": "access",
            "KCR_STORE_SECRET_KEY": "secret-of-the-store",
        } | settings
        async with started(api, folder, **chosen) as program:
            yield f"http://127.0.0.1:{program.port}/v1"
        assert not store.files or set(store.files) <= {"code"}, "the doctor leaves no file behind"


def env(url: str, **more: str) -> dict[str, str]:
    return {"LIBRECHAT_CODE_BASEURL": url, "LIBRECHAT_CODE_API_KEY": KEY} | more


async def test_all_is_well(tmp_path: Path) -> None:
    async with front_end(tmp_path) as url:
        told = await doctor(tmp_path, env(url), "--librechat", "0.8.2-rc3")
        assert told.status == 0, told.text
        assert {told.level(c) for c in ("base-url", "reachable", "ready", "run", "upload", "download")} == {
            "ok"
        }
        assert told.level("credentials") == "ok"
        assert told.level("hang-up") == "ok"
        assert told.level("times") in ("ok", "warning"), "as busy as this machine is"
        assert KEY not in told.text


async def test_a_wrong_key(tmp_path: Path) -> None:
    async with front_end(tmp_path) as url:
        told = await doctor(tmp_path, env(url, LIBRECHAT_CODE_API_KEY="another"), "--librechat", "0.8.1")
        assert told.status == 1
        assert told.failures() == {"credentials"}
        assert "KCR_API_KEYS_FILE" in told.do("credentials")
        assert "another" not in told.text


async def test_a_missing_key(tmp_path: Path) -> None:
    async with front_end(tmp_path) as url:
        told = await doctor(tmp_path, {"LIBRECHAT_CODE_BASEURL": url}, "--librechat", "0.8.1")
        assert told.failures() == {"api-key", "credentials"}
        assert told.do("api-key") == "Set LIBRECHAT_CODE_API_KEY."


@pytest.mark.parametrize("version", ["0.8.5", "0.8.8"])
async def test_releases_that_send_no_key_need_an_open_front_end(tmp_path: Path, version: str) -> None:
    async with front_end(tmp_path) as url:
        told = await doctor(tmp_path, env(url), "--librechat", version, "--quick")
        assert told.failures() == {"credentials"}
    async with front_end(tmp_path, KCR_AUTH="none") as url:
        told = await doctor(tmp_path, {"LIBRECHAT_CODE_BASEURL": url}, "--librechat", version, "--quick")
        assert told.status == 0, told.text
        assert told.level("credentials") == "ok"


async def test_the_version_of_the_package_says_it_exactly(tmp_path: Path) -> None:
    async with front_end(tmp_path) as url:
        last = await doctor(tmp_path, env(url), "--agents", "3.1.67", "--quick")
        first = await doctor(tmp_path, env(url), "--agents", "3.1.68", "--quick")
        assert (last.status, first.status) == (0, 1)


async def test_tokens_that_the_front_end_does_not_verify(tmp_path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    signing = {
        "CODEAPI_AUTH_PROVIDER": "librechat-jwt",
        "CODEAPI_JWT_PRIVATE_KEY_BASE64": base64.b64encode(pem).decode(),
    }
    async with front_end(tmp_path) as url:
        told = await doctor(tmp_path, env(url, **signing), "--librechat", "0.8.8", "--quick")
        assert told.failures() == {"credentials"}
        assert "public key" in told.do("credentials")
        broken = signing | {"CODEAPI_JWT_PRIVATE_KEY_BASE64": "no base64!"}
        told = await doctor(tmp_path, env(url, **broken), "--librechat", "0.8.8", "--quick")
        assert told.failures() == {"credentials"}
        none = {"CODEAPI_JWT_ENABLED": "true"}
        told = await doctor(tmp_path, env(url, **none), "--librechat", "0.8.8", "--quick")
        assert "tokens" in told.failures()


@pytest.mark.parametrize("version", ["0.8.3", "0.8.6"])
async def test_without_the_cures_of_the_hang_up(tmp_path: Path, version: str) -> None:
    settings = {"KCR_CLOSE_CONNECTIONS": "false", "KCR_HEARTBEAT": "false", "KCR_AUTH": "none"}
    async with front_end(tmp_path, **settings) as url:
        told = await doctor(tmp_path, env(url), "--librechat", version)
        if version == "0.8.3":
            assert told.failures() == {"hang-up"}
            assert "KCR_HEARTBEAT" in told.do("hang-up")
        else:
            assert (told.status, told.level("hang-up")) == (0, "warning")


@pytest.mark.parametrize("cure", ["KCR_CLOSE_CONNECTIONS", "KCR_HEARTBEAT"])
async def test_one_cure_suffices(tmp_path: Path, cure: str) -> None:
    settings = {"KCR_CLOSE_CONNECTIONS": "false", "KCR_HEARTBEAT": "false"} | {cure: "true"}
    async with front_end(tmp_path, **settings) as url:
        told = await doctor(tmp_path, env(url), "--librechat", "0.8.3")
        assert (told.status, told.level("hang-up")) == (0, "note")


async def test_addresses_that_are_none(tmp_path: Path) -> None:
    for url, do in (
        ("", "Set LIBRECHAT_CODE_BASEURL"),
        ("127.0.0.1:8000/v1", "Set it to an address"),
        ("http://127.0.0.1:8000/v1/exec", "Take /exec off"),
        ("http://127.0.0.1:8000/v1?key=1", "Leave only"),
        ("http://127.0.0.1:99999/v1", "Set it to an address"),
    ):
        told = await doctor(tmp_path, env(url), "--offline")
        assert (told.status, told.failures()) == (1, {"base-url"}), url
        assert do in told.do("base-url")


async def test_nobody_there(tmp_path: Path) -> None:
    told = await doctor(tmp_path, env("http://127.0.0.1:1/v1"))
    assert told.failures() == {"reachable"}
    told = await doctor(tmp_path, env("http://front-end.invalid/v1"))
    assert told.failures() == {"reachable"}


async def test_proxies(tmp_path: Path) -> None:
    at = env("http://kcr.example.org:8000/v1", PROXY="http://proxy:3128")
    for more, version, level in (
        ({}, "3.9.2", "warning"),
        ({"NO_PROXY": "example.org"}, "3.9.2", "ok"),
        ({"NO_PROXY": "localhost, .example.org"}, "3.9.2", "ok"),
        ({"NO_PROXY": "example.com"}, "3.9.2", "warning"),
        ({"NO_PROXY": "kcr.example.org"}, "3.2.57", "warning"),
        ({"NO_PROXY": "*", "HTTP_PROXY": "http://proxy:3128"}, "3.9.2", "ok"),
    ):
        told = await doctor(tmp_path, at | more, "--agents", version, "--offline")
        assert told.level("proxy") == level, more


async def test_arguments_and_output_for_people(tmp_path: Path) -> None:
    assert (await doctor(tmp_path, {}, "--librechat", "new")).status == 2
    file = tmp_path / "missing.env"
    for arguments, status, text in (
        (["--env", str(file)], 2, "missing.env"),
        (["--env", "-", "--offline"], 1, "FAILURE  LIBRECHAT_CODE_BASEURL is not set"),
    ):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kubecoderun_api.doctor", *arguments, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=REPOSITORY,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == status
        assert text in out.decode()
