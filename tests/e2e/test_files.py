"""Files of sessions in the deployed system: uploaded, given to programs, left by programs, removed."""

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.deployment import SESSIONS
from e2e.frontend import Answer, FrontEnd
from e2e.kube import Kube, Object
from e2e.pools import ended, fresh_name, session_manifest
from e2e.store import ObjectStore, object_store
from e2e.uploading import upload
from e2e.waiting import eventually
from kubecoderun_crds import names

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("full_pool")]
Create = Callable[[Object], str]


@pytest.fixture(scope="module")
def store(kube: Kube) -> Iterator[ObjectStore]:
    with object_store(kube) as found:
        yield found


def download(front_end: FrontEnd, session: str, file: str) -> Answer:
    return front_end.call("GET", f"/v1/download/{session}/{file}")


def made(answer: Answer) -> dict[str, dict[str, Any]]:
    """The files an answer tells of, by name."""
    return {file["name"]: file for file in answer["files"]}


def test_a_file_on_its_way_through_two_programs(front_end: FrontEnd, kube: Kube) -> None:
    reference = upload(front_end, "in put/données.csv", b"x,y\n1,2\n3,4\n")
    first = front_end.exec(
        "import os, pandas as pd\n"
        "frame = pd.read_csv('/mnt/data/in put/données.csv')\n"
        "os.makedirs('out/deep')\n"
        "frame.sum().to_json('out/deep/sum of é.json')\n"
        "open('empty', 'w').close()\n",
        files=[reference],
    )
    assert (first.status, first["stderr"]) == (200, "")
    files = made(first)
    assert set(files) == {"out/deep/sum of é.json", "empty"}, "an unchanged input is not handed back"
    result = files["out/deep/sum of é.json"]
    assert download(front_end, first.session, result["id"]).body == b'{"x":4,"y":6}'
    assert download(front_end, first.session, files["empty"]["id"]).body == b""
    second = front_end.exec("print(open('out/deep/sum of é.json').read())", files=[result])
    assert second["stdout"] == '{"x":4,"y":6}\n'
    status = kube.session(first.session)["status"]
    assert (status["phase"], status["fileCount"]) == ("Succeeded", 2)
    assert kube.session(reference["session_id"])["status"]["phase"] == "Held"


def test_inputs_that_a_program_removed_are_told(front_end: FrontEnd, kube: Kube) -> None:
    inputs = [upload(front_end, name, b"1") for name in ("gone.txt", "moved.txt", "kept.txt")]
    answer = front_end.exec(
        "import os; os.remove('gone.txt'); os.rename('moved.txt', 'new.txt')", files=inputs
    )
    assert answer["deleted_files"] == ["gone.txt", "moved.txt"]
    assert set(made(answer)) == {"new.txt"}
    assert kube.session(answer.session)["status"]["deletedFiles"] == ["gone.txt", "moved.txt"]
    assert download(front_end, inputs[0]["session_id"], inputs[0]["id"]).body == b"1", "others may need it"


def test_files_of_a_program_that_failed_are_kept(front_end: FrontEnd) -> None:
    answer = front_end.exec("open('partial.txt', 'w').write('so far')\nraise SystemExit(3)")
    assert (answer.status, answer["code"]) == (200, 3)
    assert download(front_end, answer.session, made(answer)["partial.txt"]["id"]).body == b"so far"


def test_files_of_a_program_that_ran_out_of_time_are_kept(front_end: FrontEnd) -> None:
    answer = front_end.exec("open('a', 'w').write('1')\nwhile True: pass", timeout=1000)
    assert (answer.status, answer["status"]) == (200, "TO")
    assert set(made(answer)) == {"a"}


def test_a_changed_input_becomes_a_new_file(front_end: FrontEnd) -> None:
    reference = upload(front_end, "table.csv", b"before")
    answer = front_end.exec("open('table.csv', 'a').write(' and after')", files=[reference])
    (file,) = answer["files"]
    assert file["id"] != reference["id"]
    assert file["modified_from"] == {
        "id": reference["id"],
        "storage_session_id": reference["session_id"],
    }
    assert download(front_end, answer.session, file["id"]).body == b"before and after"
    assert download(front_end, reference["session_id"], reference["id"]).body == b"before"


def test_150_megabytes_in_and_out(front_end: FrontEnd) -> None:
    content = hashlib.shake_128(b"kubecoderun").digest(1 << 20) * 150
    reference = upload(front_end, "big.bin", content)
    code = (
        "import hashlib\n"
        "data = open('big.bin', 'rb').read()\n"
        "print(len(data), hashlib.sha256(data).hexdigest())\n"
        "import os; os.rename('big.bin', 'moved.bin')\n"
    )
    answer = front_end.exec(code, files=[reference])
    expected = hashlib.sha256(content).hexdigest()
    assert answer["stdout"] == f"{len(content)} {expected}\n", answer["stderr"]
    got = download(front_end, answer.session, made(answer)["moved.bin"]["id"])
    assert hashlib.sha256(got.body).hexdigest() == expected


def test_plots_come_back_as_pictures(front_end: FrontEnd) -> None:
    answer = front_end.exec(
        "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()\nplt.figure(); plt.bar([1], [2])"
    )
    assert (answer["stderr"], sorted(made(answer))) == ("", ["figure-1.png", "figure-2.png"])
    for file in answer["files"]:
        assert download(front_end, answer.session, file["id"]).body.startswith(b"\x89PNG")


@pytest.mark.parametrize("removed", ["file", "session"])
def test_a_missing_input_is_named_and_nothing_runs(front_end: FrontEnd, kube: Kube, removed: str) -> None:
    reference = upload(front_end, "missing.csv", b"x")
    session, file = reference["session_id"], reference["id"]
    if removed == "file":
        assert front_end.call("DELETE", f"/v1/files/{session}/{file}").status == 200
    else:
        kube.kubectl("delete", "executionsession", session)
    answer = front_end.exec("print('ran')", files=[reference])
    assert (answer.status, answer["stdout"]) == (200, "")
    assert "missing.csv" in answer["stderr"]
    assert download(front_end, session, file).status == 404


def test_by_kubectl_a_missing_input_fails_with_its_name(
    kube: Kube, full_pool: str, own_session: Create
) -> None:
    inputs = [{"path": "a/b.txt", "session": "no-such-session", "id": "a" * 21}]
    name = own_session(session_manifest(fresh_name("input"), full_pool, "print(1)", inputs=inputs))
    status = ended(kube, name)["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "InputUnavailable")
    assert "a/b.txt" in status["message"]
    assert "pod" not in status


def test_what_kubectl_deletes_goes_from_the_store(
    front_end: FrontEnd, kube: Kube, store: ObjectStore
) -> None:
    session = upload(front_end, "a.txt", b"x")["session_id"]
    ended(kube, session)
    assert len(store.objects(session)) == 1
    time.sleep(6)  # what is only seconds old might belong to another session of that name
    kube.kubectl("delete", "executionsession", session)
    eventually(lambda: not store.objects(session), "its bytes are removed", patience=180)


def test_what_expires_goes_from_the_store(
    kube: Kube, full_pool: str, own_session: Create, store: ObjectStore
) -> None:
    manifest = session_manifest(fresh_name("expires"), full_pool, "open('a', 'w').write('1')")
    soon = time.gmtime(time.time() + 15)
    manifest["spec"]["expiresAt"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", soon)
    name = own_session(manifest)
    ended(kube, name)
    assert len(store.objects(name) - {names.RESULT_OBJECT}) == 1
    eventually(lambda: kube.find(f"{SESSIONS}/{name}") is None, "the session is removed", patience=120)
    eventually(lambda: not store.objects(name), "its bytes are removed", patience=180)


def test_a_deleted_file_leaves_the_others(front_end: FrontEnd, store: ObjectStore) -> None:
    answer = front_end.exec("open('a', 'w').write('1'); open('b', 'w').write('2')")
    files = made(answer)
    gone, kept = files["a"]["id"], files["b"]["id"]
    path = f"/v1/files/{answer.session}/{gone}"
    assert front_end.call("DELETE", path).status == 200
    assert download(front_end, answer.session, gone).status == 404
    assert download(front_end, answer.session, kept).body == b"2"
    # The result of a run that took long is there, too.
    assert store.objects(answer.session) - {names.RESULT_OBJECT} == {kept}
