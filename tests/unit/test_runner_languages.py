"""The table of languages: command lines, and what agrees with it elsewhere."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from kubecoderun_crds.fields import LANGUAGES
from kubecoderun_runner.environment import read_settings
from kubecoderun_runner.held import KINDS
from kubecoderun_runner.languages import BY_NAME, HOOK_FOLDER, TABLE, Language, installed
from languages.containers import FAMILIES

ROOT = Path(__file__).resolve().parents[2]


def test_every_language_of_the_resource_is_in_the_table() -> None:
    assert {language.name for language in TABLE} == set(LANGUAGES)


def test_arguments_come_last_and_as_they_are() -> None:
    assert BY_NAME["py"].argv("main-1.py", ["-x", "{source}"]) == ["python", "main-1.py", "-x", "{source}"]


def compiled(compiler: str) -> Language:
    """A language whose compiler is a shell script."""
    return Language("x", "main.x", compile=("sh", "-c", compiler, "sh", "{source}", "{build}/main"))


def start(language: Language, source: str, args: list[str], build: Path) -> subprocess.CompletedProcess[str]:
    argv = language.argv(source, args, str(build))
    return subprocess.run(argv, input="in\n", capture_output=True, text=True, check=False, cwd=build)


def test_a_compiled_program_gets_what_is_meant_for_it(tmp_path: Path) -> None:
    """Its input is not read by the compiler, whose output is not its own, and no argument is looked into."""
    build = tmp_path / "a folder's"
    build.mkdir()
    program = "#!/bin/sh\\ncat; printf '[%%s]' \\\"\\$@\\\"; exit 3"
    compiler = f'cat; echo made of "$1"; printf "{program}" > "$2"; chmod +x "$2"'
    done = start(compiled(compiler), "it's $HOME.x", ["$(id)", "two words", ""], build)
    assert (done.returncode, done.stdout) == (3, "in\n[$(id)][two words][]")
    assert done.stderr == "made of it's $HOME.x\n"


def test_a_compiler_that_fails_is_the_end(tmp_path: Path) -> None:
    done = start(compiled("echo line 3 >&2; exit 5"), "main.x", [], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (5, "", "line 3\n")


def test_what_is_installed(tmp_path: Path) -> None:
    for tool in ("node", "gcc"):
        (tmp_path / tool).touch(0o755)
    (tmp_path / "go").touch(0o644)
    (tmp_path / "php").mkdir()
    assert installed(f"{tmp_path}:/nowhere:") == ["js", "ts", "c"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_spare_has_a_language_and_its_hook(kind: str) -> None:
    assert any(language.spare == kind for language in TABLE)
    words = [*KINDS[kind].command, *KINDS[kind].env.values()]
    hooks = [word for word in words if HOOK_FOLDER in word or word.startswith("@")]
    assert hooks
    for word in hooks:
        assert os.path.exists(word[word.index("/") :])


def test_settings() -> None:
    assert read_settings({}).languages == ("py",)
    assert read_settings({"KCR_LANGUAGES": "js,ts"}).languages == ("js", "ts")


def test_every_language_has_a_pool_with_its_image() -> None:
    pools = [*(ROOT / "manifests" / "samples").glob("*-pool.yaml")]
    pools += (ROOT / "manifests" / "components").glob("*/*-pool.yaml")
    offered = {}
    for path in pools:
        pool = yaml.safe_load(path.read_text())
        runtime = pool["spec"]["runtime"]
        family = pool["metadata"]["name"]
        assert runtime["image"] == f"localhost/kubecoderun-{family}:dev"
        offered[family] = set(runtime["languages"])
    assert offered == {family: set(languages) for family, languages in FAMILIES.items()}
