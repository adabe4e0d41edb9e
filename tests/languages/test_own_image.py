"""docs/own-image.md does what it says: its Containerfile is built and runs programs."""

from __future__ import annotations

import re

import pytest

from languages.cases import BY_CASE, check, program
from languages.containers import ROOT, RunnerContainer, command, engine

PAGE = ROOT / "docs" / "own-image.md"
BASE = ROOT / "build" / "base-image"


def containerfile() -> str:
    """The one on the page."""
    found = re.search(r"```dockerfile\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    with_engine = engine()
    if with_engine is None or not BASE.is_file():
        pytest.skip("no base image has been built or pulled: cluster/base-image.sh")
    file = tmp_path_factory.mktemp("own") / "Containerfile"
    # the page starts from a public image, which is not in reach of every machine
    text, count = re.subn(
        r"^FROM .*$", f"FROM {BASE.read_text().strip()}", containerfile(), flags=re.MULTILINE
    )
    assert count == 1
    file.write_text(text)
    name = "localhost/kubecoderun-test-own:latest"
    built = command(with_engine, "build", "--network", "host", "-f", str(file), "-t", name, str(ROOT))
    assert built.returncode == 0, built.stderr[-3000:]
    return name


@pytest.mark.parametrize("case", ["hello", "arguments", "failure", "files"])
def test_it_runs_programs(image: str, case: str) -> None:
    with RunnerContainer(image, ["bash"]) as runner:
        assert "bash" in runner.hello["languages"]
        one = BY_CASE[case]
        inputs = {path: text.encode() for path, text in one.inputs.items()}
        code = program("bash", one).encode()
        runner.prepare(code, language="bash", args=one.args, inputs=inputs, outputs=20)
        got = runner.go()
    files = {path: data.decode() for path, data in got.files.items()}
    ended = (got.exit["exitCode"], got.exit["signal"])
    check("bash", one, got.stdout.decode(), got.stderr.decode(), ended, files)


def test_what_it_lacks_is_not_offered(image: str) -> None:
    with RunnerContainer(image, ["bash"]) as runner:
        assert not {"java", "rs", "php"} & set(runner.hello["languages"])
