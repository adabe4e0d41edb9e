"""POST /exec as a client sees it: one program in, one JSON document out."""

import re

import pytest

from e2e.frontend import FrontEnd
from e2e.kube import Kube

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("pool")]
ID = re.compile(r"^[A-Za-z0-9_-]{21}$")


def test_minimal_call(front_end: FrontEnd) -> None:
    answer = front_end.exec("print(1)")
    assert answer.status == 200
    assert ID.match(answer.session)
    assert {name: answer[name] for name in ("stdout", "stderr", "files", "code")} == {
        "stdout": "1\n", "stderr": "", "files": [], "code": 0,
    }  # fmt: skip
    assert answer.headers["content-type"].startswith("application/json")


def test_every_call_is_a_session_of_its_own(front_end: FrontEnd) -> None:
    names = {front_end.exec("print(1)").session for _ in range(3)}
    assert len(names) == 3


def test_exception_is_an_answer(front_end: FrontEnd) -> None:
    answer = front_end.exec("print('before', flush=True)\n1/0")
    assert answer.status == 200
    assert answer["code"] == 1
    assert answer["stdout"] == "before\n"
    assert answer["stderr"].startswith("Traceback (most recent call last):\n")
    assert answer["stderr"].rstrip().endswith("ZeroDivisionError: division by zero")
    assert "line 2" in answer["stderr"]
    assert "kubecoderun" not in answer["stderr"], "frames of the runner do not belong into a user's traceback"
    assert answer["status"] is None


def test_exit_code_of_the_program(front_end: FrontEnd) -> None:
    answer = front_end.exec("import sys\nprint('bye')\nsys.exit(3)")
    assert (answer.status, answer["code"], answer["stdout"], answer["stderr"]) == (200, 3, "bye\n", "")


def test_death_by_signal(front_end: FrontEnd, kube: Kube) -> None:
    answer = front_end.exec("import os, signal\nprint('x', flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert (answer.status, answer["stdout"], answer["signal"]) == (200, "x\n", "SIGSEGV")
    assert kube.session(answer.session)["status"]["reason"] == "Signalled"


def test_stderr_is_kept_when_the_program_succeeds(front_end: FrontEnd) -> None:
    answer = front_end.exec("import sys\nprint('out')\nprint('warning', file=sys.stderr)")
    assert (answer["code"], answer["stdout"], answer["stderr"]) == (0, "out\n", "warning\n")


def test_no_output_at_all(front_end: FrontEnd) -> None:
    answer = front_end.exec("pass")
    assert (answer.status, answer["code"], answer["stdout"], answer["stderr"]) == (200, 0, "", "")


@pytest.mark.parametrize(
    ("args", "seen"),
    [(["a b", "ü", "-x"], "['a b', 'ü', '-x']\n"), ("alone", "['alone']\n"), ([1, True], None), ([], "[]\n")],
)
def test_arguments(front_end: FrontEnd, args: object, seen: str | None) -> None:
    """A list of strings is the rule; models also send bare strings and numbers, and are not refused."""
    answer = front_end.exec("import sys\nprint(sys.argv[1:])", args=args)
    assert answer.status == 200
    assert seen is None or answer["stdout"] == seen


def test_unknown_fields_are_ignored(front_end: FrontEnd) -> None:
    answer = front_end.exec(
        "print(2)", user_id="user-1", session_id="nosuchsessionnosuchse", entity_id="agent_1", intent="x",
        LIBRECHAT_CODE_API_KEY=None, conversationWorkspaceInstanceId={"a": [1]}, files=[],
    )  # fmt: skip
    assert (answer.status, answer["stdout"]) == (200, "2\n")


@pytest.mark.parametrize("path", ["/exec", "/v1/exec", "//exec", "/v1//exec", "//v1///exec"])
def test_every_spelling_of_the_path(front_end: FrontEnd, path: str) -> None:
    answer = front_end.exec("print('here')", path=path)
    assert (answer.status, answer["stdout"]) == (200, "here\n")


def test_any_bytes_on_stdout(front_end: FrontEnd) -> None:
    """Bytes that are no UTF-8 must not break the JSON, and what is text in them stays readable."""
    answer = front_end.exec("import sys\nsys.stdout.buffer.write(b'a\\xff\\x00b\\n')")
    assert answer.status == 200
    assert answer["stdout"].startswith("a")
    assert answer["stdout"].endswith("b\n")


def test_unicode(front_end: FrontEnd) -> None:
    answer = front_end.exec("print('données 🐍 ' + '漢' * 3)")
    assert answer["stdout"] == "données 🐍 漢漢漢\n"


def test_libraries_are_there(front_end: FrontEnd) -> None:
    code = (
        "import numpy, matplotlib, pandas as pd\n"
        "print(int(pd.DataFrame({'a': [1, 2, 3]})['a'].sum()), matplotlib.get_backend())"
    )
    answer = front_end.exec(code)
    assert answer["stderr"] == ""
    assert answer["stdout"].split()[0] == "6"


def test_program_is_main_and_has_a_working_folder(front_end: FrontEnd) -> None:
    code = (
        "import os, sys\nprint(__name__, os.getcwd(), sys.argv[0], 'PYTHONPATH' in os.environ)\n"
        "open('/mnt/data/x', 'w').write('y')\nopen('/tmp/z', 'w').write('y')\n"
        "print([n for n in os.listdir('/tmp') if n[0] != '.'])"
    )
    answer = front_end.exec(code)
    assert answer["stdout"] == "__main__ /mnt/data main.py False\n['z']\n"


def test_processes_of_a_program(front_end: FrontEnd) -> None:
    code = (
        "import subprocess, multiprocessing as mp, threading\n"
        "def f(x): return x * x\n"
        "if __name__ == '__main__':\n"
        "    print(subprocess.run(['echo', 'child'], capture_output=True, text=True).stdout.strip())\n"
        "    with mp.Pool(2) as p: print(p.map(f, [1, 2, 3]))\n"
        "    t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
    )
    answer = front_end.exec(code)
    assert (answer["stderr"], answer["stdout"]) == ("", "child\n[1, 4, 9]\nthread\n")


def test_time_limit_ends_every_process_and_keeps_the_output(front_end: FrontEnd, kube: Kube) -> None:
    """A child in a session of its own holds the pipes open: without ending it too, no answer would come for
    ten minutes."""
    code = (
        "import subprocess, time\nprint('before', flush=True)\n"
        "subprocess.Popen(['setsid', 'sh', '-c', 'trap \"\" TERM INT HUP; while :; do sleep 1; done'])\n"
        "time.sleep(600)"
    )
    answer = front_end.exec(code, timeout=2000)
    assert answer.status == 200
    assert answer["status"] == "TO"
    assert answer["stdout"] == "before\n"
    status = kube.session(answer.session)["status"]
    assert (status["phase"], status["reason"]) == ("TimedOut", "TimeLimit")


def test_a_program_that_ends_takes_its_background_children_along(front_end: FrontEnd) -> None:
    code = "import subprocess\nsubprocess.Popen(['setsid', 'sleep', '600'])\nprint('done')"
    answer = front_end.exec(code)
    assert (answer.status, answer["code"], answer["stdout"]) == (200, 0, "done\n")


def test_memory_limit(front_end: FrontEnd, kube: Kube) -> None:
    """Death by the kernel's OOM killer is an ordinary answer, with the output so far."""
    code = "print('before', flush=True)\nx = []\nwhile True: x.append(bytearray(16 << 20))"
    answer = front_end.exec(code, timeout=60000)
    assert answer.status == 200
    assert answer["stdout"] == "before\n"
    assert answer["code"] != 0
    assert kube.session(answer.session)["status"]["phase"] == "Failed"


def test_health(front_end: FrontEnd) -> None:
    answer = front_end.call("GET", "/v1/health", headers={})
    assert answer.status == 200
    assert answer.headers["connection"].lower() == "close"


def test_the_heartbeat_of_a_long_call(front_end: FrontEnd) -> None:
    """A call over two seconds sends white space before its JSON, so that nobody on the way loses patience."""
    answer = front_end.exec("import time\ntime.sleep(6)\nprint('late')")
    assert answer["stdout"] == "late\n"
    assert len(answer.body) - len(answer.body.lstrip()) >= 2
    assert answer.headers["transfer-encoding"] == "chunked"
