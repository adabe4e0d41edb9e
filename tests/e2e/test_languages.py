"""The table of cases of every language, deployed: over HTTP, and as a resource where HTTP lacks a field."""

import base64
from collections.abc import Callable
from typing import Any

import pytest

from e2e.deployment import POOLS
from e2e.frontend import FrontEnd
from e2e.kube import Kube, Object
from e2e.pools import ended, fresh_name, session_manifest
from e2e.test_files import download
from e2e.uploading import upload
from languages.cases import CASES, LANGUAGES, Case, check, program

pytestmark = pytest.mark.cluster
ON_DEMAND = {"java", "php", "r"}
"""Languages that `make test` has no pools for; `make test-languages` has."""


@pytest.fixture(scope="module")
def pools(kube: Kube) -> dict[str, str]:
    """Language -> name of the pool that runs it."""
    found: dict[str, str] = {}
    for pool in kube.items(POOLS):
        for language in pool["spec"]["runtime"].get("languages", ["py"]):
            found.setdefault(language, pool["metadata"]["name"])
    return found


def by_http(front_end: FrontEnd, language: str, case: Case) -> None:
    """One `/exec`, with its files uploaded before and downloaded after."""
    files = [upload(front_end, path, text.encode()) for path, text in case.inputs.items()]
    answer = front_end.exec(program(language, case), lang=language, args=case.args, files=files)
    assert answer.status == 200, answer.body
    left = {file["name"]: file for file in answer["files"]}
    texts = {
        name: download(front_end, file["session_id"], file["id"]).body.decode() for name, file in left.items()
    }
    check(language, case, answer["stdout"], answer["stderr"], (answer["code"], answer["signal"]), texts)


def stream(result: Object, name: str) -> str:
    """Standard output or errors as the resource holds them."""
    encoded = result.get(f"{name}Base64")
    return base64.b64decode(encoded).decode() if encoded else str(result.get(name, ""))


def by_resource(
    kube: Kube, own_session: Callable[[Object], str], pool: str, language: str, case: Case
) -> None:
    """One ExecutionSession: only these have standard input."""
    request: dict[str, Any] = {"language": language, "stdin": case.stdin, "args": case.args}
    name = own_session(session_manifest(fresh_name("lang"), pool, program(language, case), **request))
    result = ended(kube, name)["status"]["result"]
    check(
        language, case, stream(result, "stdout"), stream(result, "stderr"),
        (result.get("exitCode"), result.get("signal")),
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("language", LANGUAGES)
def test_case(
    language: str,
    case: Case,
    pools: dict[str, str],
    kube: Kube,
    front_end: FrontEnd,
    own_session: Callable[[Object], str],
) -> None:
    if language in ON_DEMAND and language not in pools:
        pytest.skip(f"no pool for {language}: make test-languages")
    assert language in pools, f"no pool for {language}; there are {sorted(pools)}"
    if case.stdin:
        by_resource(kube, own_session, pools[language], language, case)
    else:
        by_http(front_end, language, case)
