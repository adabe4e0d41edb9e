"""Files through a conversation with the client package: attached, plotted, fetched, used again, changed."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from client.conftest import MakeClient
from client.packages import GENERATIONS
from e2e.watching import InvariantWatcher

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("invariants")]
ID_LENGTH = 21
ROWS = "month,sold\n1,10\n2,30\n3,2\n"
CSV = "ventes été.csv"
WAYS = [(each, carrier) for each in GENERATIONS for carrier in ("host", each.carrier)]


@pytest.fixture(scope="module", params=WAYS, ids=[f"{each.agents} by {carrier}" for each, carrier in WAYS])
def told(make_client: MakeClient, request: pytest.FixtureRequest, invariants: InvariantWatcher) -> Any:
    """What files.cjs tells of one conversation. How files get from call to call depends on the version."""
    generation, carrier = request.param
    return make_client(generation).run("files.cjs", carrier=carrier)


def test_the_answer_to_an_upload(told: dict[str, Any]) -> None:
    answer = told["upload"]
    assert answer["message"] == "success"
    assert answer["session_id"] == answer["storage_session_id"]
    assert len(answer["session_id"]) == ID_LENGTH
    (file,) = answer["files"]
    assert (len(file["fileId"]), file["filename"]) == (ID_LENGTH, CSV)


def test_an_upload_is_fresh(told: dict[str, Any]) -> None:
    """Older than 23 hours, or not told: LibreChat would upload the file again before every run."""
    modified = datetime.fromisoformat(told["modified"].replace("Z", "+00:00"))
    assert abs(datetime.now(UTC) - modified) < timedelta(hours=1)


def test_the_program_reads_the_attached_file(told: dict[str, Any]) -> None:
    assert "sold 42" in told["contents"][0]
    assert "stderr" not in told["contents"][0]


def test_the_picture_comes_back(told: dict[str, Any]) -> None:
    plot, artifact = told["plot"], told["artifacts"][0]
    assert plot is not None, artifact
    assert plot["begins"] == "\x89PNG\r\n\x1a\n"
    new = [file["name"] for file in artifact["files"] if not file.get("inherited")]
    assert new == ["plot.png"], "the attached file has not changed"
    headers = plot["headers"]
    assert "plot.png" in headers["content-disposition"]
    assert headers["connection"] == "close"
    assert "content-encoding" not in headers
    assert headers.get("content-length", str(plot["length"])) == str(plot["length"])


def test_the_next_call_finds_picture_and_table(told: dict[str, Any]) -> None:
    assert f"png {told['plot']['sha256']}" in told["contents"][1]
    assert "added" in told["contents"][1]
    assert "stderr" not in told["contents"][1]


def test_a_changed_input_is_a_new_file_of_the_same_name(told: dict[str, Any]) -> None:
    changed = told["changed"]
    assert changed is not None, told["artifacts"][1]
    assert changed["text"] == ROWS + "4,100\n"
    assert changed["sha256"] == hashlib.sha256(changed["text"].encode()).hexdigest()
    assert changed["reference"]["id"] != told["upload"]["files"][0]["fileId"]


def test_the_call_after_that_reads_the_changed_one(told: dict[str, Any]) -> None:
    assert "now 142" in told["contents"][2]


def test_a_file_in_a_folder_is_there_for_the_call_after(told: dict[str, Any]) -> None:
    assert "out/deep/notes é.txt" in [file["name"] for file in told["artifacts"][2]["files"]]
    assert "notes kept" in told["contents"][3]
