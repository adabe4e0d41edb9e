"""Programs and outputs beyond what fits in a resource: through the object store, bounded in memory."""

import base64
import threading
from collections.abc import Callable
from typing import Any

import pytest

from e2e.frontend import FrontEnd
from e2e.kube import Kube, KubeError, Object
from e2e.pools import ended, fresh_name, session_manifest
from e2e.stats import container_memory

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("full_pool")]
KEPT = 65536
SIDECAR_BOUND = 96 << 20
"""Bytes the sidecar may use while a gigabyte passes through it; idle it uses less than a third of this."""


@pytest.mark.parametrize("size", [17 << 10, 2 << 20])
def test_code_over_the_inline_limit_goes_through_the_store(
    front_end: FrontEnd, kube: Kube, size: int
) -> None:
    code = f"text = '''{'x' * size}'''\nprint(len(text))"
    answer = front_end.exec(code)
    assert (answer.status, answer["stdout"]) == (200, f"{size}\n")
    request = kube.session(answer.session)["spec"]["request"]
    assert "code" not in request
    assert request["codeRef"]["bytes"] == len(code)


def test_code_at_the_inline_limit_stays_in_the_resource(front_end: FrontEnd, kube: Kube) -> None:
    code = "print(1)".ljust(16384, "#")
    answer = front_end.exec(code)
    assert answer["stdout"] == "1\n"
    assert kube.session(answer.session)["spec"]["request"]["code"] == code


def test_output_over_the_inline_limit_comes_whole(front_end: FrontEnd, kube: Kube) -> None:
    answer = front_end.exec("print(''.join(chr(97 + i % 26) for i in range(40 << 10)))")
    assert answer["stdout"] == "".join(chr(97 + i % 26) for i in range(40 << 10)) + "\n"
    result = kube.session(answer.session)["status"]["result"]
    assert result["stored"] is True
    assert result["stdoutBytes"] == (40 << 10) + 1
    assert result["stdoutTruncated"] is True, "what stands in the resource is not all"
    assert answer["status"] is None, "what the client gets is"
    assert len(inline(result, "stdout")) <= 16 << 10


def test_both_streams_over_the_limit(front_end: FrontEnd, kube: Kube) -> None:
    code = "import sys\nsys.stdout.write('O' * 100_000)\nsys.stderr.write('E' * 90_000)"
    answer = front_end.exec(code)
    assert answer["status"] == "OL"
    result = kube.session(answer.session)["status"]["result"]
    assert (result["stdoutBytes"], result["stderrBytes"]) == (100_000, 90_000)
    assert result["stdoutTruncated"] is result["stderrTruncated"] is True
    for text, letter in ((answer["stdout"], "O"), (answer["stderr"], "E")):
        assert KEPT - 200 <= text.count(letter) <= KEPT
    assert set(answer["stdout"]) == {"O"}, "what the program wrote, and nothing else"
    assert "bytes omitted" in answer["stderr"]


def test_a_gigabyte_of_output(front_end: FrontEnd, kube: Kube) -> None:
    """The beginning and the count are right, and the sidecar's memory stays bounded while the rest
    passes by."""
    total = 1 << 30
    code = (
        "import sys, time\nout = sys.stdout.buffer\nout.write(b'HEAD\\n')\nblock = b'm' * (1 << 20)\n"
        f"left = {total} - 10\nwhile left > 0:\n    left -= out.write(block[:left])\n"
        "out.write(b'TAIL\\n')\nout.flush()\nprint('written', file=sys.stderr, flush=True)\ntime.sleep(25)\n"
    )
    peaks = Peaks(kube)
    with peaks:
        answer = front_end.exec(code, timeout=240_000)
    assert answer.status == 200
    assert answer["code"] == 0, answer.body[-300:]
    said = "written\n[kubecoderun] Output limit: of the 1 GiB of stdout only the beginning was kept, "
    assert answer["stderr"].startswith(said), answer.body[-300:]
    assert answer["stdout"] == "HEAD\n" + "m" * (KEPT - 5)
    result = kube.session(answer.session)["status"]["result"]
    assert (result["stdoutBytes"], result["stdoutTruncated"]) == (total, True)
    assert peaks.samples, "the kubelet never told the sidecar's memory"
    assert max(peaks.samples) < SIDECAR_BOUND, peaks.samples


def inline(result: dict[str, Any], stream: str) -> bytes:
    """The part of a stream that stands in the resource."""
    if f"{stream}Base64" in result:
        return base64.b64decode(result[f"{stream}Base64"])
    return str(result.get(stream, "")).encode()


class Peaks:
    """Collects the sidecar's working set in every assigned pod, as the kubelet tells it, while the block
    runs."""

    def __init__(self, kube: Kube) -> None:
        self.samples: list[int] = []
        self._kube, self._stop = kube, threading.Event()
        self._thread = threading.Thread(target=self._collect, daemon=True)

    def __enter__(self) -> "Peaks":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _collect(self) -> None:
        while not self._stop.wait(1.0):
            try:
                used = container_memory(self._kube, "sidecar", assigned=True)
            except KubeError:
                continue  # the pod went away between two calls
            self.samples.extend(memory.working_set for memory in used)


def test_code_that_is_not_in_the_store(
    kube: Kube, full_pool: str, own_session: Callable[[Object], str]
) -> None:
    """A session that claims stored code nobody put there ends with a definite reason."""
    manifest = session_manifest(fresh_name("claims"), full_pool, "")
    request = manifest["spec"]["request"]
    del request["code"]
    request["codeRef"] = {"bytes": 10, "sha256": "0" * 64}
    status = ended(kube, own_session(manifest))["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "CodeUnavailable")


def test_a_long_run_stores_its_result(front_end: FrontEnd, kube: Kube) -> None:
    """Runs over a second keep their result in the store before they answer, so that a crash cannot lose
    it."""
    answer = front_end.exec("import time\ntime.sleep(1.5)\nprint('slow')")
    assert answer["stdout"] == "slow\n"
    status = kube.session(answer.session)["status"]
    assert status["result"]["stored"] is True
    assert status["timings"]["stored"]
