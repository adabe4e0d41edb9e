"""The benchmark's uploads, downloads and memory figures, against a server that remembers what it got."""

import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.figures import missed
from bench.files import DOWNLOAD_BYTES, fetch_all, making, sleeping
from bench.memory import MemoryWatch, growth, sample
from bench.run import MEASURES
from bench.uploads import Upload, UploadError, remove, send, taken
from e2e.frontend import Answer, FrontEnd, parse

METRICS = "# TYPE x gauge\nprocess_start_time_seconds 1.7e+09\nprocess_resident_memory_bytes {}\nother 3\n"


@dataclass
class Remembered:
    """What a fake front end was asked, and how it answers."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    status: int = 200
    resident: Iterator[int] = field(default_factory=lambda: itertools.repeat(100 << 20))


@pytest.fixture
def remembered() -> Iterator[Remembered]:
    """A server on the loopback interface."""
    state = Remembered()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body: bytes) -> None:
            state.paths.append(f"{self.command} {self.path}")
            state.keys.add(self.headers.get("X-API-Key", ""))
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self.answer(METRICS.format(next(state.resident)).encode())
            else:
                number = int(self.path.rpartition("-")[2])
                self.answer(bytes([number]) * DOWNLOAD_BYTES)

        def do_POST(self) -> None:
            state.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(json.dumps({"session_id": "s" * 21, "files": [{"fileId": "f" * 21}]}).encode())

        def do_DELETE(self) -> None:
            self.answer(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("size", [1, 2048, (1 << 20) - 1, 1 << 20, (2 << 20) + 1])
def test_an_upload_is_as_long_as_it_says(size: int) -> None:
    upload = Upload("a.bin", size)
    body = b"".join(upload)
    assert len(body) == int(upload.headers["Content-Length"])
    assert b"".join(upload) == body, "it can be sent again"
    boundary = upload.headers["Content-Type"].partition("boundary=")[2].encode()
    head, _, content = body.removesuffix(b"\r\n--" + boundary + b"--\r\n").partition(b"\r\n\r\n")
    assert len(content) == size
    assert head.startswith(b"--" + boundary + b"\r\n")
    assert b'name="file"; filename="a.bin"' in head


def test_sending_and_removing_a_file(remembered: Remembered) -> None:
    front_end = FrontEnd(remembered.url, "the-key")
    file = send(front_end, "a.bin", 3 << 20)
    assert file.reference() == {"id": "f" * 21, "session_id": "s" * 21, "name": "a.bin"}
    assert file.seconds > 0
    assert len(remembered.bodies[0]) > 3 << 20
    remove(front_end, file)
    assert remembered.paths == ["POST /v1/upload", f"DELETE /v1/files/{'s' * 21}/{'f' * 21}"]
    assert remembered.keys == {"the-key"}
    remembered.status = 404
    with pytest.raises(UploadError, match="404"):
        remove(front_end, file)


@pytest.mark.parametrize("body", [b"", b'{"session_id": "s", "files": []}', b'{"error": "too large"}'])
def test_an_answer_without_a_file_is_an_error(body: bytes) -> None:
    with pytest.raises(UploadError, match="status 413"):
        taken(Answer(413, {}, body, 0.1, parse(body)), "a.bin")


def test_downloads_at_one_moment(remembered: Remembered) -> None:
    files = [{"id": f"x-{number}", "name": f"file-{number}.bin"} for number in range(20)]
    errors: list[str] = []
    took, total = fetch_all(FrontEnd(remembered.url, "k"), "session", files, errors)
    assert errors == []
    assert len(took) == 20
    assert total >= max(took)


def test_wrong_downloads_are_errors_and_no_times(remembered: Remembered) -> None:
    files = [{"id": "x-1", "name": "file-1.bin"}, {"id": "x-2", "name": "file-3.bin"}]
    errors: list[str] = []
    took, _ = fetch_all(FrontEnd(remembered.url, "k"), "session", files, errors)
    assert len(took) == 1
    assert errors == [f"file-3.bin: {DOWNLOAD_BYTES} bytes, not those of the program"]
    remembered.status = 404
    took, _ = fetch_all(FrontEnd(remembered.url, "k"), "session", files, errors)
    assert took == []
    assert "status 404" in errors[-1]


def test_growth_is_that_of_the_process_that_grew_most() -> None:
    before = [(1.0, 100.0), (2.0, 50.0), (1.0, 110.0)]
    assert growth(before, [(1.0, 115.0), (2.0, 80.0), (1.0, 90.0), (3.0, 9e9)]) == 30.0
    assert growth(before, [(1.0, 90.0)]) == -20.0
    assert growth(before, [(3.0, 1.0)]) is None
    assert growth(before, []) is None


def test_a_sample_out_of_the_metrics() -> None:
    assert sample(METRICS.format("1.048576e+06")) == (1.7e9, 1048576.0)
    with pytest.raises(KeyError):
        sample("up 1\n")


def test_memory_is_watched_while_a_block_runs(remembered: Remembered) -> None:
    remembered.resident = itertools.chain([100 << 20] * 5, [140 << 20], itertools.repeat(90 << 20))
    seen_twice = threading.Event()
    with MemoryWatch(FrontEnd(remembered.url, "k")) as watch:
        for _ in range(500):
            if watch.samples >= 2 or seen_twice.wait(0.02):
                break
    assert watch.samples >= 2
    assert watch.growth_mib() == 40.0


def test_programs_of_the_scenarios(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(making(3, 10), {})
    assert (tmp_path / "file-2.bin").read_bytes() == b"\x02" * 10
    assert capsys.readouterr().out == "made\n"
    assert sleeping(0).endswith("print(0)")
    assert "getsize('attached.bin')" in sleeping(5)


def test_what_is_wanted_of_them() -> None:
    assert {"sleep10_none", "sleep10_2kb", "sleep10_45mb", "download_50_parallel", "upload_150mb"} <= set(
        MEASURES
    )
    assert missed("sleep10_45mb", {"p50_ms": 768.0}) == ["p50_ms"]
    assert missed("upload_150mb", {"growth_mib": 31.0}) == []
