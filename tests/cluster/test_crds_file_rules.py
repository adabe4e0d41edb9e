"""What the API server refuses about files of sessions: added, changed, removed or wiped."""

import json
from itertools import count
from typing import Any

import pytest

from cluster.kubectl import (
    Json,
    Kubectl,
    nested,
    patch_arguments,
    removals_refused,
    replace_arguments,
)

pytestmark = pytest.mark.cluster

SERIAL = count(1)
AT = "2027-01-01T00:00:00.5Z"
ENDED: Json = {
    "phase": "Failed",
    "reason": "NonZeroExit",
    "timings": {"completed": AT},
    "result": {"exitCode": 3},
}
A, B, C = "a" * 21, "b" * 21, "0123456789abcdefghijk"
HELD: Json = {"phase": "Held", "reason": "FilesHeld", "timings": {"completed": AT}, "fileCount": 1}
BAD_PATHS = {
    "": "path",
    "/a": "a path must be relative",
    "a/": "a path must be relative",
    "a//b": "a path must be relative",
    ".": "a path must be relative",
    "./a": "a path must be relative",
    "..": "a path must be relative",
    "a/../b": "a path must be relative",
    "a/..": "a path must be relative",
    "a\\b": "a path must be relative",
    "/".join("abcdefghijk"): "a path must not have more than 10 segments",
    "a\nb": "path: Invalid value",
    "a\tb": "path: Invalid value",
    "a\x1b": "path: Invalid value",
    "a\u202eb": "path: Invalid value",
    "x" * 257: "may not be more than 256",
}
GOOD_PATHS = (
    "a",
    "main.py",
    ".hidden",
    "...",
    "..a",
    "a..",
    "Bericht (2) - Kopie.xlsx",
    "表/数据 1.csv",
    "🙂" * 256,
    "/".join("abcdefghij"),
)


def session(**request: Any) -> Json:
    """A session to create; a value of None leaves a field of the request out."""
    return {
        "apiVersion": "kubecoderun.io/v1alpha1",
        "kind": "ExecutionSession",
        "metadata": {"name": f"f{next(SERIAL)}"},
        "spec": {"request": {key: value for key, value in request.items() if value is not None}},
    }


def run(**request: Any) -> Json:
    return session(**{"poolRef": {"name": "python"}, "language": "py", "code": "print(1)", **request})


def held(**request: Any) -> Json:
    return session(**{"mode": "Files", "files": [file(A)], **request})


def file(id: str, path: str = "data.csv", size: int = 3, **more: Any) -> Json:
    return {"id": id, "path": path, "bytes": size, **more}


def given(path: str = "data.csv", id: str = A, owner: str = "other", **more: Any) -> Json:
    return {"path": path, "session": owner, "id": id, **more}


def name_of(thing: Json) -> str:
    return str(thing["metadata"]["name"])


# --- modes ----------------------------------------------------------------------------------------


def test_a_run_is_the_default(kubectl: Kubectl) -> None:
    assert kubectl.create(run())["spec"]["request"]["mode"] == "Run"


def test_files_need_no_pool(kubectl: Kubectl) -> None:
    stored = kubectl.create(held(tenant="me"))["spec"]["request"]
    assert stored == {
        "mode": "Files",
        "files": [{**file(A), "readOnly": False}],
        "tenant": "me",
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("poolRef", {"name": "python"}),
        ("language", "py"),
        ("code", "print(1)"),
        ("codeRef", {"bytes": 1, "sha256": "a" * 64}),
        ("inputs", [given()]),
        ("inputs", []),
        ("args", ["a"]),
        ("stdin", "x"),
        ("env", [{"name": "A"}]),
        ("timeoutSeconds", 5),
    ],
)
def test_sessions_of_files_run_nothing(kubectl: Kubectl, field: str, value: Any) -> None:
    said = kubectl.create_refused(held(**{field: value}))
    assert "a session of mode Files runs nothing: it must not have poolRef, workspaceRef, language" in said


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (run(files=[file(A)]), "there must be files in mode Files, and in no other mode"),
        (held(files=None), "there must be files in mode Files, and in no other mode"),
        (held(files=[]), "should have at least 1 items"),
        (run(mode="Container"), "Unsupported value"),
        (run(poolRef=None), "a session of mode Run must have language, and poolRef or workspaceRef"),
        (run(language=None), "a session of mode Run must have language, and poolRef or workspaceRef"),
        (run(code=None), "there must be exactly one of code and codeRef"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_modes_that_make_no_sense(kubectl: Kubectl, thing: Json, said: str) -> None:
    assert said in kubectl.create_refused(thing)


# --- files and inputs -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", BAD_PATHS, ids=ascii)
def test_paths_that_are_none(kubectl: Kubectl, path: str) -> None:
    assert BAD_PATHS[path] in kubectl.create_refused(held(files=[file(A, path)]))
    assert BAD_PATHS[path] in kubectl.create_refused(run(inputs=[given(path)]))
    name = name_of(kubectl.create(run()))
    status = {**ENDED, "files": [file(A, path)]}
    assert BAD_PATHS[path] in kubectl.refusal(*patch_arguments("esess", name, {"status": status}, "status"))


def test_paths(kubectl: Kubectl) -> None:
    inputs = [given(path) for path in GOOD_PATHS]
    stored = kubectl.create(run(inputs=inputs))["spec"]["request"]["inputs"]
    assert [entry["path"] for entry in stored] == list(GOOD_PATHS)


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (held(files=[file("short")]), "spec.request.files[0].id"),
        (held(files=[file("A" * 21)]), "spec.request.files[0].id"),
        (held(files=[file(A), file(A, "other")]), "Duplicate value"),
        (held(files=[file(A, size=-1)]), "spec.request.files[0].bytes"),
        (held(files=[file(A, size=2**40 + 1)]), "spec.request.files[0].bytes"),
        (held(files=[file(A, contentType="a\nb")]), "spec.request.files[0].contentType"),
        (held(files=[file(f"{n:021d}") for n in range(257)]), "must have at most 256 items"),
        (held(files=[{"id": A, "path": "a"}]), "spec.request.files[0].bytes: Required value"),
        (run(inputs=[given("a"), given("a", id=B)]), "Duplicate value"),
        (run(inputs=[given(owner="a.b")]), "spec.request.inputs[0].session"),
        (run(inputs=[given(id="../code")]), "spec.request.inputs[0].id"),
        (run(inputs=[given(f"f{n}") for n in range(257)]), "must have at most 256 items"),
        (run(inputs=[{"path": "a", "id": A}]), "spec.request.inputs[0].session: Required value"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_make_no_sense(kubectl: Kubectl, thing: Json, said: str) -> None:
    assert said in kubectl.create_refused(thing)


def test_most_files_with_the_longest_paths(kubectl: Kubectl) -> None:
    """The rules about paths stay within the API server's budget for evaluating them."""
    long = "/".join(["ä" * 26] * 9)
    kubectl.create(held(files=[file(f"{n:021d}", f"{long}/{n:013d}") for n in range(256)]))
    kubectl.create(run(inputs=[given(f"{long}/{n:013d}", id=f"{n:021d}") for n in range(256)]))


def test_files_and_inputs_are_immutable(kubectl: Kubectl) -> None:
    for thing, patch in (
        (held(), nested("files", [file(B)])),
        (held(), nested("files", [file(A), file(B)])),
        (held(), nested("files", [file(A, "renamed")])),
        (run(inputs=[given()]), nested("inputs", [])),
        (run(inputs=[given()]), nested("inputs", [given(readOnly=True)])),
        (run(), nested("inputs", [given()])),
    ):
        name = name_of(kubectl.create(thing))
        said = kubectl.refusal(*patch_arguments("esess", name, {"spec": {"request": patch}}))
        assert "the request must not be changed" in said
    name = name_of(kubectl.create(run(inputs=[given()])))
    for said in removals_refused(kubectl, name, "spec/request/inputs", None):
        assert "the request must not be changed" in said


def test_a_session_keeps_its_mode(kubectl: Kubectl) -> None:
    name = name_of(kubectl.create(held()))
    for said in removals_refused(kubectl, name, "spec/request/mode", None):
        assert "the request must not be changed" in said
    said = kubectl.refusal(*patch_arguments("esess", name, {"spec": {"request": {"mode": "Run"}}}))
    assert "the request must not be changed" in said


# --- removed files --------------------------------------------------------------------------------

ONLY_GROW = "removedFiles must only grow"


def test_removed_files_only_grow(kubectl: Kubectl) -> None:
    name = name_of(kubectl.create(held(files=[file(A), file(B), file(C)])))
    for ids in ([A], [A], [B, A], [C, B, A]):
        kubectl.out(*patch_arguments("esess", name, {"spec": {"removedFiles": ids}}))
    said = [
        kubectl.refusal(*patch_arguments("esess", name, {"spec": {"removedFiles": [A, B]}})),
        kubectl.refusal(*patch_arguments("esess", name, {"spec": {"removedFiles": []}})),
        kubectl.refusal(*patch_arguments("esess", name, [{"op": "remove", "path": "/spec/removedFiles/0"}])),
        *removals_refused(kubectl, name, "spec/removedFiles", None),
    ]
    assert all(ONLY_GROW in text for text in said)
    wiped = kubectl.get("esess", name)
    wiped["spec"] = {"request": wiped["spec"]["request"]}
    assert ONLY_GROW in kubectl.refusal(*replace_arguments(), stdin=json.dumps(wiped))
    assert kubectl.get("esess", name)["spec"]["removedFiles"] == [C, B, A]


def test_a_file_can_be_removed_with_one_json_patch(kubectl: Kubectl) -> None:
    name = name_of(kubectl.create(held(files=[file(A), file(B)])))
    first = [{"op": "add", "path": "/spec/removedFiles", "value": [A]}]
    kubectl.out(*patch_arguments("esess", name, first))
    kubectl.out(*patch_arguments("esess", name, [{"op": "add", "path": "/spec/removedFiles/-", "value": B}]))
    assert kubectl.get("esess", name)["spec"]["removedFiles"] == [A, B]
    again = kubectl.refusal(
        *patch_arguments("esess", name, [{"op": "add", "path": "/spec/removedFiles/-", "value": B}])
    )
    assert "Duplicate value" in again


def test_files_are_removed_from_ended_sessions(kubectl: Kubectl) -> None:
    """A file's removal and a longer life touch only the spec, so they are possible after the end."""
    name = name_of(kubectl.create(held()))
    kubectl.out(*patch_arguments("esess", name, {"status": HELD}, "status"))
    kubectl.out(*patch_arguments("esess", name, {"spec": {"removedFiles": [A], "expiresAt": AT}}))
    assert kubectl.get("esess", name)["status"] == HELD


@pytest.mark.parametrize("ids", [["short"], ["A" * 21], [A, A], [f"{n:021d}" for n in range(257)]])
def test_removed_files_are_ids(kubectl: Kubectl, ids: list[str]) -> None:
    name = name_of(kubectl.create(held()))
    assert "spec.removedFiles" in kubectl.refusal(
        *patch_arguments("esess", name, {"spec": {"removedFiles": ids}})
    )


def test_most_removed_files(kubectl: Kubectl) -> None:
    name = name_of(kubectl.create(held()))
    ids = [f"{n:021d}" for n in range(256)]
    kubectl.out(*patch_arguments("esess", name, {"spec": {"removedFiles": ids[1:]}}))
    kubectl.out(*patch_arguments("esess", name, {"spec": {"removedFiles": ids}}))


# --- the status -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"files": [file(A), file(A, "b")]}, "Duplicate value"),
        ({"files": [file("x")]}, "status.files[0].id"),
        ({"files": [file(A, modifiedFrom={"session": "other"})]}, "modifiedFrom.id: Required value"),
        ({"files": [file(f"{n:021d}") for n in range(257)]}, "must have at most 256 items"),
        ({"fileCount": -1}, "status.fileCount"),
        ({"skippedFiles": [{"path": "a", "reason": "because"}]}, "Unsupported value"),
        ({"skippedFiles": [{"path": "a\x1b", "reason": "size"}]}, "status.skippedFiles[0].path"),
        ({"skippedFiles": [{"path": "a", "reason": "size"}] * 21}, "must have at most 20 items"),
    ],
)
def test_statuses_that_make_no_sense(kubectl: Kubectl, status: Json, said: str) -> None:
    name = name_of(kubectl.create(run()))
    assert said in kubectl.refusal(*patch_arguments("esess", name, {"status": status}, "status"))


def test_an_end_keeps_its_files(kubectl: Kubectl) -> None:
    files = [file(A), file(B, "b/c", modifiedFrom={"session": "other", "id": C})]
    name = name_of(kubectl.create(run()))
    kubectl.out(*patch_arguments("esess", name, {"status": {**ENDED, "files": files}}, "status"))
    said = [
        kubectl.refusal(*patch_arguments("esess", name, {"status": {"files": changed}}, "status"))
        for changed in (files[:1], [*files, file(C)], [file(A, size=4), files[1]], [])
    ]
    said += removals_refused(kubectl, name, "status/files", "status")
    assert all("an ended session must keep its reason, result and files" in text for text in said)
    for text in removals_refused(kubectl, name, "status", "status"):
        assert "an ended session must keep its phase" in text
    kubectl.out(*patch_arguments("esess", name, {"status": {"message": "explained"}}, "status"))
    assert kubectl.get("esess", name)["status"]["files"] == files


def test_an_end_without_files_gets_none_later(kubectl: Kubectl) -> None:
    name = name_of(kubectl.create(run()))
    kubectl.out(*patch_arguments("esess", name, {"status": ENDED}, "status"))
    said = kubectl.refusal(*patch_arguments("esess", name, {"status": {"files": [file(A)]}}, "status"))
    assert "an ended session must keep its reason, result and files" in said


def test_sessions_of_files_are_no_work(kubectl: Kubectl) -> None:
    """The operator watches with such a selector: what holds files does not come back to it."""
    name = name_of(kubectl.create(held()))
    selector = ("get", "esess", "--field-selector", "status.phase!=Held", "-o", "name")
    assert f"/{name}\n" in kubectl.out(*selector)
    kubectl.out(*patch_arguments("esess", name, {"status": HELD}, "status"))
    assert f"/{name}\n" not in kubectl.out(*selector)
