"""Each language's start: a program by `/exec` beside the same program started by hand in the same container.

Compared is the time from the program's start to its end, compiling included: as the session's status tells
it, and as a clock inside a warm pod's runtime container does.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any, Final

from bench.figures import Scenario, milliseconds
from bench.latency import instant
from bench.system import IDLE_SECONDS, System
from e2e.deployment import POOLS
from e2e.pools import unassigned, wait_at_target
from kubecoderun_runner.languages import BY_NAME
from languages.cases import BY_CASE, program

BY_HAND: Final = {
    "py": "python main.py",
    "bash": "bash main.sh",
    "js": "node main.js",
    "ts": "node --experimental-transform-types main.ts",
    "c": "gcc -O1 -o main main.c -lm && ./main",
    "cpp": "g++ -std=c++23 -O1 -o main main.cpp && ./main",
    "f90": "gfortran -O1 -o main main.f90 && ./main",
    "d": "gdc -O1 -o main main.d && ./main",
    "rs": "rustc --edition=2024 -o main main.rs && ./main",
    "go": "go build -o main main.go && ./main",
    "java": "java Main.java",
    "php": "php main.php",
    "r": "Rscript main.R",
}
"""What a person would type, without what our images have prepared: WITHOUT takes that away."""
WITHOUT: Final = {"COMPILER_PATH": "", "CPLUS_INCLUDE_PATH": "", "GOCACHE": "/tmp/by-hand-go-build"}
COMMENT: Final = {**dict.fromkeys(BY_HAND, "//"), **dict.fromkeys(("py", "bash", "r"), "#"), "f90": "!"}
"""Begins one. Each sample is another program, or a compiler's cache would have the second one whole."""
TYPICAL: Final = Path(__file__).parent / "programs"
_TIMER: Final = """
import json, os, subprocess, sys, tempfile, time
given = json.load(sys.stdin)
env = {**os.environ, "HOME": "/tmp", **given["env"]}
seconds = []
for number in range(given["n"]):
    os.chdir(tempfile.mkdtemp(dir="/tmp"))
    with open(given["source"], "w", encoding="utf-8") as file:
        print(given["code"], given["comment"] + str(number), sep="\\n", file=file)
    began = time.perf_counter()
    done = subprocess.run(["sh", "-c", given["command"]], env=env, capture_output=True, text=True)
    seconds.append(time.perf_counter() - began)
    assert done.returncode == 0, done.stderr
print(json.dumps({"seconds": seconds, "stdout": done.stdout}))
"""


def languages(system: System, n: int) -> dict[str, Scenario]:
    """Hello and a typical program of every language that has a pool."""
    scenarios: dict[str, Scenario] = {}
    for pool in system.kube.items(POOLS):
        for language in pool["spec"]["runtime"]["languages"]:
            for name, code in programs(language).items():
                scenario = compare(system, pool["metadata"]["name"], language, code, n)
                scenarios[f"{language}_{name}"] = scenario
    return scenarios


def programs(language: str) -> dict[str, str]:
    """The two programs, by name."""
    suffix = Path(BY_NAME[language].source).suffix
    typical = (TYPICAL / f"typical{suffix}").read_text(encoding="utf-8")
    return {"hello": program(language, BY_CASE["hello"]), "typical": typical}


def compare(system: System, pool: str, language: str, code: str, n: int) -> Scenario:
    """`n` runs of each kind, and how their medians compare."""
    # The pod of the run before may look unused for a moment.
    wait_at_target(system.kube, pool)
    time.sleep(IDLE_SECONDS)
    wait_at_target(system.kube, pool)
    hand = by_hand(system, unassigned(system.kube, pool)[0]["metadata"]["name"], language, code, n)
    seconds: list[float] = []
    errors: list[str] = []
    for _ in range(n):
        wait_at_target(system.kube, pool)
        time.sleep(0.5)
        answer = system.front_end.exec(code, lang=language)
        if answer.status != 200 or answer["stdout"] != hand["stdout"] or answer["stderr"]:
            errors.append(answer.body[:300].decode(errors="replace"))
            continue
        timings = system.kube.session(answer.session)["status"]["timings"]
        seconds.append(instant(timings["finished"]) - instant(timings["started"]))
    figures: Scenario = {"n": len(seconds), "errors": len(errors), "first_errors": errors[:3]}
    if seconds:
        ours, theirs = statistics.median(seconds), statistics.median(hand["seconds"])
        figures |= {
            "median_ms": milliseconds(ours),
            "by_hand_ms": milliseconds(theirs),
            "ratio": round(ours / theirs, 3),
        }
    return figures


def by_hand(system: System, pod: str, language: str, code: str, n: int) -> dict[str, Any]:
    """Time it inside a pod's runtime container; the pod is used up by that."""
    order = {
        "source": BY_NAME[language].source,
        "code": code,
        "command": BY_HAND[language],
        "comment": COMMENT[language],
        "env": WITHOUT,
        "n": n,
    }
    command = ("exec", "-i", pod, "-c", "runtime", "--", "python3", "-c", _TIMER)
    told = json.loads(system.kube.kubectl(*command, stdin=json.dumps(order)).stdout)
    assert isinstance(told, dict)
    system.kube.kubectl("delete", "pod", pod, "--wait=false")
    return told
