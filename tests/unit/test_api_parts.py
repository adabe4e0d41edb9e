"""Small parts of the front end: paths, log lines, back-off, the manifest, what imports what."""

import asyncio
import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kubecoderun_api
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.chores import Chores
from kubecoderun_api.cluster import ClusterError
from kubecoderun_api.log import JsonLines
from kubecoderun_api.manifests import manifest
from kubecoderun_api.middleware import normal_path, route_of
from kubecoderun_api.watching import backoff
from kubecoderun_crds import names
from kubecoderun_crds.session import SessionSpec


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/exec", "/exec"),
        ("//exec", "/exec"),
        ("/v1/exec/", "/exec"),
        ("/v1//exec", "/exec"),
        ("///v1///exec///", "/exec"),
        ("/v1", "/"),
        ("/", "/"),
        ("", "/"),
        ("/v1x/exec", "/v1x/exec"),
        ("/v1/v1/exec", "/v1/exec"),
        ("/v1/exec/programmatic", "/exec/programmatic"),
    ],
)
def test_spellings_of_paths(path: str, normal: str) -> None:
    assert normal_path(path) == normal


@given(st.text("/v1ex.", max_size=20))
def test_a_normal_path_has_single_slashes_and_no_end(path: str) -> None:
    made = normal_path("/" + path)
    assert made.startswith("/")
    assert "//" not in made
    assert made == "/" or not made.endswith("/")


ROUTES = ("/exec", "/files/{session}", "/files/{session}/{file}", "/sessions/{session}/objects/{file}")


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/exec", "/exec"),
        ("/files/a", "/files/{session}"),
        ("/files/a/b", "/files/{session}/{file}"),
        ("/sessions/a/objects/b", "/sessions/{session}/objects/{file}"),
        ("/sessions/a/things/b", None),
        ("/files", None),
        ("/files/", None),
        ("/files/a/b/c", None),
        ("/exec/x", None),
        ("/", None),
    ],
)
def test_routes_of_paths(path: str, route: str | None) -> None:
    assert route_of(path, ROUTES) == route


async def test_chores_are_finished_and_their_failures_told(caplog: pytest.LogCaptureFixture) -> None:
    done = []

    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)
        done.append(seconds)

    async def fail() -> None:
        raise ValueError("SECRET")

    chores = Chores()
    for chore in (work(0.01), work(100), fail()):
        chores.start(chore)
    await chores.finish(0.2)
    assert done == [0.01]
    assert [record.getMessage() for record in caplog.records] == ["chore_failed", "chores_broken_off"]
    assert "SECRET" not in JsonLines().format(caplog.records[0])
    await chores.finish(0.2)


def test_a_log_line_has_the_type_and_place_of_an_error_but_not_its_text() -> None:
    try:
        raise ValueError("SECRET")
    except ValueError as error:
        record = logging.LogRecord(
            "kubecoderun_api", logging.ERROR, "", 0, "oops", None, (ValueError, error, None)
        )
        record.facts = {"session": "s"}
    text = JsonLines().format(record)
    line = json.loads(text)
    assert (line["event"], line["session"], line["error"]) == ("oops", "s", "ValueError")
    assert line["frames"][0].endswith("test_a_log_line_has_the_type_and_place_of_an_error_but_not_its_text")
    assert "SECRET" not in text


@given(st.integers(1, 10_000))
def test_back_off_grows_and_is_bounded(failures: int) -> None:
    assert 0.03 < backoff(failures) <= min(0.05 * 2 ** min(failures - 1, 20), 5.0)


def test_the_manifest_is_what_the_resource_takes() -> None:
    document = manifest(
        "a" * 21,
        namespace="n",
        front_end="uid",
        expires=datetime(2026, 1, 1, 11, 29, tzinfo=UTC),
        principal=Principal(tenant="acme"),
        metadata={"labels": {names.LABEL_KIND: "agent"}, "annotations": {names.ANNOTATION_RESOURCE: "a:1"}},
        spec={
            "request": {
                "poolRef": {"name": "p"},
                "language": "py",
                "code": "x",
                "args": ["a"],
                "timeoutSeconds": 3,
            }
        },
    )
    made = json.loads(document)
    assert made["metadata"]["annotations"] == {names.ANNOTATION_RESOURCE: "a:1"}
    assert made["metadata"]["labels"] == {
        names.LABEL_FRONT_END: "uid",
        names.LABEL_EXPIRES: "2026010111",
        names.LABEL_TENANT: "acme",
        names.LABEL_KIND: "agent",
    }
    request = SessionSpec.model_validate(made["spec"]).request
    assert (request.args, request.tenant) == (["a"], "acme")


@pytest.mark.parametrize(
    ("status", "retriable"), [(0, True), (500, True), (503, True), (429, True), (409, False), (422, False)]
)
def test_which_calls_may_succeed_later(status: int, retriable: bool) -> None:
    assert ClusterError(status, "x").retriable is retriable


def test_only_the_cluster_module_knows_the_kubernetes_client() -> None:
    (folder,) = kubecoderun_api.__path__
    users = [file.name for file in Path(folder).rglob("*.py") if "kubernetes.aio" in file.read_text()]
    assert users == ["cluster.py"]
