"""/openapi.json says what the front end does: schemathesis sends what it allows, and what it does not."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from contract.fakes_api.apiserver import held, pool, ran, succeeded
from contract.fakes_api.background import Background, in_background
from contract.fakes_api.system import KEY, System, running
from kubecoderun_api.app import create_app
from kubecoderun_api.middleware import FrontDoor
from kubecoderun_api.settings import Authentication, Settings
from kubecoderun_crds import names
from kubecoderun_crds.fields import LANGUAGES

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
EXAMPLES = 40
"""Of each operation and kind: bounds the time."""
S, F = "s" * 21, "s" * 13 + "file0001"
R, G = "r" * 21, "r" * 13 + "file0002"


@pytest.fixture(scope="module")
def served() -> Iterator[Background]:
    with in_background(max_body_bytes=100_000, max_upload_bytes=100_000) as background:
        background.do(_furnish)
        yield background


async def _furnish(system: System) -> None:
    """Two sessions with files, and an operator that ends every run at once."""
    system.api.put(names.POOL_PLURAL, pool("python", *LANGUAGES))
    system.api.put(names.SESSION_PLURAL, held(S, {"id": F, "path": "a.csv", "bytes": 1, "readOnly": True}))
    system.api.put(names.SESSION_PLURAL, ran(R, {"id": G, "path": "b/c.png", "bytes": 2}))
    for session, file, content in ((S, F, b"x"), (R, G, b"yz")):
        system.store.objects[f"/kubecoderun/kubecoderun/kubecoderun/{session}/{file}"] = content
    made = [{"id": names.file_id(S), "path": "out.txt", "bytes": 1, "modifiedFrom": {"session": S, "id": F}}]
    system.api.answer = lambda session: succeeded("ran\n", files=made)


@pytest.fixture(scope="module")
def described(served: Background) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{served.url}/openapi.json")


def ask(
    described: BaseSchema, method: str, path: str, modes: list[GenerationMode], **parameters: str
) -> None:
    """Send cases of one operation and hold each answer against the document."""

    @BOUNDED
    @given(data=st.data())
    def one(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from(modes))
        case = data.draw(described[path][method].as_strategy(generation_mode=mode))
        if parameters:
            case.path_parameters = parameters
        case.call_and_validate(headers={"X-API-Key": KEY}, checks=CHECKS)

    one()


BOUNDED = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
BOTH = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


def operations() -> list[tuple[str, str]]:
    """Method and path of all there are."""
    door, _ = create_app(Settings(auth=Authentication.NONE))
    assert isinstance(door, FrontDoor)
    paths = door.app.openapi()["paths"]
    return [(method.upper(), path) for path, item in paths.items() for method in item]


OPERATIONS = operations()


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_whatever_may_be_sent_is_answered_as_described(described: BaseSchema, method: str, path: str) -> None:
    ask(described, method, path, BOTH if "{" in path or method == "POST" else BOTH[:1])


def test_the_cases_are_of_both_kinds(described: BaseSchema, served: Background) -> None:
    """What is asked gets through, and what is wrong does not: else the other tests would show nothing."""
    for method, path in (("POST", "/exec"), ("POST", "/upload")):
        ask(described, method, path, BOTH)
        for status in ("200", "400"):
            assert served.system.metric("requests_total", route=path, status=status) > 0, (path, status)


@pytest.mark.parametrize("path", [path for method, path in OPERATIONS if method == "GET" and "{" in path])
@pytest.mark.parametrize(("session", "file"), [(S, F), (R, G), (S, G)])
def test_files_that_exist_are_answered_as_described(
    described: BaseSchema, path: str, session: str, file: str
) -> None:
    ask(described, "GET", path, BOTH[:1], session=session, file=file)


async def test_it_needs_no_key_and_tells_of_all_that_clients_use() -> None:
    async with running() as system:
        page = await system.request("GET", "/docs")
        assert page.status == 200
        assert "/openapi.json" in page.raw.decode()
        document = (await system.request("GET", "/v1/openapi.json")).json
        for path, method in (
            ("/exec", "post"),
            ("/upload", "post"),
            ("/upload/batch", "post"),
            ("/files/{session}", "get"),
            ("/files/{session}/{file}", "delete"),
            ("/sessions/{session}/objects/{file}", "get"),
            ("/download/{session}/{file}", "get"),
            ("/health", "get"),
        ):
            responses = document["paths"][path][method]["responses"]
            assert "200" in responses
            assert "422" not in responses, "no answer has FastAPI's own shape"
        assert set(document["components"]["securitySchemes"]) == {"key", "bearer"}
