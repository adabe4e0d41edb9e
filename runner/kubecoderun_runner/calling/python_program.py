"""Runs a Python program that calls tools. The program's own process executes this text (toolprograms.py).

What the program sees: an async function for each tool, `asyncio` and `json`; `await` and `return` at top
level. An error shows the program's own lines only.
"""

# The program imports what it likes afterwards, so nothing here may depend on modules it could replace.
from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

_Entry = tuple[str, str, "asyncio.Future[Any]"]
"""A call on its way: tool, input as JSON, and who waits."""

_MAX_INPUT_BYTES = 500_000
_MAX_MESSAGE_BYTES = 900_000
_SETTLING_TURNS = 50
"""Turns of the event loop that calls are collected for, while other tasks are about to make theirs."""
_USUAL = {"pd": "pandas", "np": "numpy", "plt": "matplotlib.pyplot"}
"""Names that programs written by models use without importing them, because their examples do."""


JOB: str = globals()["JOB"]
LAUNCHER: str = globals()["LAUNCHER"]
"""Both given by whoever executes this text: what to run, and where this text is."""


class ToolError(RuntimeError):
    """A tool failed; the text says why."""


ToolError.__module__ = "builtins"


class _Calls:
    """Sends calls, those made at the same time together, and brings their results."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[asyncio.AbstractEventLoop, list[_Entry]] = {}

    def function(self, name: str, tool: str) -> Callable[..., Any]:
        async def call(*args: Any, **inputs: Any) -> Any:
            if len(args) == 1 and isinstance(args[0], dict) and not inputs:
                inputs = args[0]
            elif args:
                raise TypeError(f"{name}() takes keyword arguments only")
            return await self._made(tool, inputs)

        call.__name__ = call.__qualname__ = name
        call.__module__ = "__main__"
        call.__doc__ = f"Call the tool {tool!r}."
        return call

    async def _made(self, tool: str, inputs: dict[str, Any]) -> Any:
        text = json.dumps(inputs, allow_nan=False, separators=(",", ":"), default=_plain)
        if len(text) > _MAX_INPUT_BYTES:
            raise ToolError(f"the arguments of {tool} are over {_MAX_INPUT_BYTES} bytes")
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        waiting = self._waiting.setdefault(loop, [])
        waiting.append((tool, text, future))
        if len(waiting) == 1:
            loop.call_soon(self._settle, loop, _SETTLING_TURNS)
        return await future

    def _settle(self, loop: asyncio.AbstractEventLoop, turns: int) -> None:
        """Send what has been collected, once no task is about to run that may call too."""
        if turns and getattr(loop, "_ready", None):
            loop.call_soon(self._settle, loop, turns - 1)
            return
        batch: list[_Entry] = []
        size = 0
        for entry in self._waiting.pop(loop):
            cost = 2 * (len(entry[0]) + len(entry[1])) + 64
            if batch and (size + cost > _MAX_MESSAGE_BYTES or len(batch) == 100):
                self._send(loop, batch, False)
                batch, size = [], 0
            batch.append(entry)
            size += cost
        self._send(loop, batch, True)

    def _send(self, loop: asyncio.AbstractEventLoop, batch: list[_Entry], settled: bool) -> None:
        task = loop.create_task(self._exchange(batch, settled))
        self._tasks.add(task)  # a loop keeps no tasks alive
        task.add_done_callback(self._tasks.discard)

    async def _exchange(self, batch: list[_Entry], settled: bool) -> None:
        left = dict(enumerate(batch))
        failure = "the connection for tool calls broke"
        try:
            reader, writer = await asyncio.open_unix_connection(self._path)
            try:
                calls = [{"tool": tool, "input": text} for tool, text, _ in batch]
                data = json.dumps({"calls": calls, "settled": settled}).encode()
                writer.write(len(data).to_bytes(4, "big") + data)
                while left:
                    head = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
                    answer = json.loads(head)
                    value = await reader.readexactly(answer["bytes"]) if "bytes" in answer else b""
                    future = left.pop(answer["call"])[2]
                    if future.done():
                        continue
                    if "error" in answer:
                        future.set_exception(ToolError(answer["error"]))
                    else:
                        future.set_result(json.loads(value))
            finally:
                writer.close()
        except asyncio.CancelledError:
            failure = "the program's event loop ended"
            raise
        except Exception as error:
            failure = f"{failure}: {error}"
        finally:
            for _, _, future in left.values():
                if not future.done():
                    future.set_exception(ToolError(failure))


def _plain(value: Any) -> Any:
    """What JSON has no word for: numbers and tables of numpy and pandas, sets, paths, times."""
    for name in ("tolist", "to_dict"):
        if callable(convert := getattr(value, name, None)):
            return convert()
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    if callable(convert := getattr(value, "isoformat", None)):
        return convert()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"an argument of type {type(value).__name__} cannot be sent to a tool")


class _Returns(ast.NodeVisitor):
    """Looks for `return` outside of functions."""

    def __init__(self) -> None:
        self.found = False

    def visit_Return(self, node: ast.Return) -> None:
        self.found = True

    def _inside(self, node: ast.AST) -> None:
        return

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = visit_ClassDef = _inside  # noqa: N815


def _compiled(source: bytes, path: str) -> types.CodeType:
    """Code of the program. SyntaxError as the interpreter itself reports it."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(source, path, "exec", ast.PyCF_ONLY_AST | flags, dont_inherit=True)
    returns = _Returns()
    returns.visit(tree)
    if returns.found:
        # The program is the body of a function then, and its names are that function's.
        wrapper = compile("async def main(): pass\nawait main()", path, "exec", ast.PyCF_ONLY_AST | flags)
        function = wrapper.body[0]
        assert isinstance(function, ast.AsyncFunctionDef)
        function.body = tree.body
        tree = ast.fix_missing_locations(wrapper)
    code: types.CodeType = compile(tree, path, "exec", flags, dont_inherit=True)
    return code


def _own_lines(error: BaseException | None, path: str, seen: set[int]) -> None:
    """Take everything out of the traces of an error, and of those it stems from, that is not the
    program's."""
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    entries: list[types.TracebackType] = []
    trace = error.__traceback__
    while trace is not None and not entries and trace.tb_frame.f_code.co_filename != path:
        trace = trace.tb_next
    trace = trace or error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename != LAUNCHER:
            entries.append(trace)
        trace = trace.tb_next
    trace = None
    for entry in reversed(entries):
        trace = types.TracebackType(trace, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    error.__traceback__ = trace
    for other in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        _own_lines(other, path, seen)


def _report(error: BaseException, path: str) -> None:
    """What the interpreter prints of an uncaught error."""
    _own_lines(error, path, set())
    if sys.excepthook is not sys.__excepthook__:
        sys.excepthook(type(error), error, error.__traceback__)
        return
    sys.stdout.flush()
    traceback.print_exception(error)


def _run(job: dict[str, Any]) -> None:
    source = os.path.abspath(job["source"])
    main = sys.modules["__main__"]
    with open(job["program"], "rb") as file:
        text = file.read()
    with open(source, "wb") as file:
        file.write(text)
    calls = _Calls(job["socket"])
    names = {"asyncio": asyncio, "json": json, "ToolError": ToolError}
    for short, module in _USUAL.items():
        if re.search(rb"\b%s\." % short.encode(), text):
            try:
                names[short] = __import__(module, fromlist=["_"])
            except ImportError:
                continue
    names.update((name, calls.function(name, tool)) for name, tool in job["tools"].items())
    vars(main).update(names)
    try:
        code = _compiled(text, source)
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(types.FunctionType(code, vars(main))())
        else:
            exec(code, vars(main))
    except Exception as error:
        _report(error, source)
        sys.exit(1)


_run(json.loads(JOB))
