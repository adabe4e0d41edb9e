"""The table of cases in our own images: by an interpreter that waited, and by one that is started for it."""

from __future__ import annotations

import pytest

from kubecoderun_runner.languages import BY_NAME
from languages.cases import BY_CASE, CASES, LANGUAGES, Case, check, program
from languages.containers import FAMILIES, FAMILY_OF, RunnerContainer, image_of

SECONDS = 120


def container(language: str) -> RunnerContainer:
    """A fresh one of the language's family that expects this language; skips where the image is not there."""
    family = FAMILY_OF[language]
    image = image_of(family)
    if image is None:
        pytest.skip(f"the image of {family} has not been built: cluster/images.sh {family}")
    others = [one for one in FAMILIES[family] if one != language]
    return RunnerContainer(image, [language, *others])


def run(runner: RunnerContainer, language: str, case: Case, env: dict[str, str] | None = None) -> None:
    """Run a case and look at what comes of it."""
    inputs = {path: text.encode() for path, text in case.inputs.items()}
    runner.prepare(
        program(language, case).encode(), language=language, args=case.args, stdin=case.stdin.encode(),
        env=env, inputs=inputs, outputs=20, seconds=SECONDS,
    )  # fmt: skip
    got = runner.go()
    ended = (got.exit["exitCode"], got.exit["signal"])
    files = {path: data.decode() for path, data in got.files.items()}
    check(language, case, got.stdout.decode(), got.stderr.decode(), ended, files)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("language", LANGUAGES)
def test_case(language: str, case: Case) -> None:
    with container(language) as runner:
        assert language in runner.hello["languages"]
        run(runner, language, case)


@pytest.mark.parametrize("language", [name for name in LANGUAGES if BY_NAME[name].spare])
def test_an_interpreter_that_did_not_wait(language: str) -> None:
    """With variables of its own a program gets another interpreter, and cannot tell."""
    with container(language) as runner:
        run(runner, language, BY_CASE["failure"], {"OWN": "1"})


@pytest.mark.parametrize("language", LANGUAGES)
def test_arguments_without_waiting(language: str) -> None:
    with container(language) as runner:
        run(runner, language, BY_CASE["arguments"], {"OWN": "1"})


def shell(language: str, script: str) -> str:
    """What a Bash program prints, on both streams, in the image of a language."""
    with container(language) as runner:
        runner.prepare(script.encode(), language="bash", seconds=SECONDS)
        got = runner.go()
    assert got.exit["exitCode"] == 0, got
    return (got.stdout + got.stderr).decode()


def test_the_usual_first_header_of_cpp_is_precompiled() -> None:
    """gcc uses it silently, or silently does not: -H marks what it has used."""
    options = " ".join(part for part in BY_NAME["cpp"].compile[1:] if part.startswith("-") and part != "-o")
    told = shell("cpp", f"echo '#include <iostream>' > one.cpp; g++ {options} -H -c -o /dev/null one.cpp")
    assert "! /opt/kubecoderun/headers/iostream.gch" in told


def test_the_standard_library_of_go_is_compiled() -> None:
    program_text = 'package main\nimport _ "net/http"\nfunc main() {}'
    told = shell("go", f"cat > one.go <<'E'\n{program_text}\nE\ngo build -v -o /tmp/one one.go")
    assert told == "command-line-arguments\n"
