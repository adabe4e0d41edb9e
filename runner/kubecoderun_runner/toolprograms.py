"""Gives a program its tools: functions that stand for them, in Python and in Bash.

Python: the program's file is replaced by a few lines that run calling/python_program.py, which puts the
program's text back and runs it, with `await` at top level. So the interpreter, and a spare one, is started
as always. Bash: functions in a file that BASH_ENV names; shells that the program starts have them too.
"""

from __future__ import annotations

import json
import os
import selectors
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Final

from kubecoderun_runner.delivery import UndeliverableError
from kubecoderun_runner.frames import FrameError
from kubecoderun_runner.orders import Order, Tool
from kubecoderun_runner.program import Run
from kubecoderun_runner.toolcalls import ToolDesk

CALLING: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "calling")


def offer(
    order: Order,
    source: str,
    selector: selectors.BaseSelector,
    send: Callable[[bytes], None],
    run: Callable[[], Run | None],
) -> ToolDesk:
    """Let a program that lies in the file `source` of the current folder call the tools of its order.

    The rest as for ToolDesk. UndeliverableError when there is no room for what that takes, FrameError for a
    language whose programs cannot call tools.
    """
    desk: ToolDesk | None = None
    try:
        desk = ToolDesk(selector, send, run)
        order.env.update(arrange(order.language, source, order.tools, desk.folder, desk.path))
        return desk
    except (OSError, ValueError) as error:
        if desk is not None:
            desk.close()
        if isinstance(error, ValueError):
            raise FrameError(str(error)) from None
        message = f"no tools can be offered: {error.strerror}"
        raise UndeliverableError("inputs_too_large", 0, message) from None


def arrange(language: str, source: str, tools: Sequence[Tool], desk: str, socket: str) -> dict[str, str]:
    """Arrange for a program that lies in the file `source` of the current folder; the environment it needs.

    `desk`: a folder for what it takes. OSError when something cannot be written; ValueError for a language
    whose programs cannot call tools.
    """
    if language == "py":
        _arrange_python(source, tools, desk, socket)
        return {}
    if language == "bash":
        return {"BASH_ENV": _arrange_bash(tools, desk, socket)}
    raise ValueError(f"programs in {language} cannot call tools")


def _arrange_python(source: str, tools: Sequence[Tool], desk: str, socket: str) -> None:
    text = os.path.join(desk, "program")
    job = {
        "program": text,
        "source": source,
        "socket": socket,
        "tools": {tool.function: tool.name for tool in tools},
    }
    with open(source, "rb") as program, open(text, "xb") as copy:
        copy.write(program.read())
    launcher = os.path.join(CALLING, "python_program.py")
    # One expression, and no name that would stay.
    starter = (
        f"exec(compile(open({launcher!r}).read(), {launcher!r}, 'exec'), "
        f"{{'__name__': 'kubecoderun_tools', 'JOB': {json.dumps(job)!r}, 'LAUNCHER': {launcher!r}}})\n"
    )
    with open(source, "w", encoding="utf-8") as file:
        file.write(starter)


def _arrange_bash(tools: Sequence[Tool], desk: str, socket: str) -> str:
    path = os.path.join(desk, "functions")
    caller = shlex.join([sys.executable, "-I", "-S", os.path.join(CALLING, "bash_call.py"), socket])
    with open(path, "x", encoding="utf-8") as file:
        for tool in tools:
            # printf is the shell's own, so an argument may be longer than a command line. The program's own
            # standard input stays untouched.
            file.write(f'{tool.function}() {{ printf %s "${{1-}}" | {caller} {shlex.quote(tool.name)}; }}\n')
    return path
