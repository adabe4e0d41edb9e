"""Starts a program in a new process of its language's tool, where no spare waits for it."""

from __future__ import annotations

from typing import Final

from kubecoderun_runner import frames, languages
from kubecoderun_runner.builds import Builds
from kubecoderun_runner.delivery import Delivery
from kubecoderun_runner.launch import Process, launch
from kubecoderun_runner.orders import Order
from kubecoderun_runner.spare import hooked

_CANNOT_START: Final = 127
"""Exit code of a program that could not be started, as a shell reports it."""


def start(delivery: Delivery, env: dict[str, str], builds: Builds) -> Process:
    """The process. OSError if it cannot be started."""
    order = delivery.order
    language = languages.BY_NAME[order.language]
    env = {**env, **order.env}
    build = builds.fresh() if language.compiled else ""
    argv = language.argv(delivery.source_name, order.args, build)
    program = languages.find_program(argv[0], env["PATH"])
    if program is None:
        raise FileNotFoundError(f"{argv[0]} is not on the path")
    return launch(program, argv, hooked(env) if language.spare == "python" else env)


def complaint(order: Order, error: OSError) -> bytes:
    """Frame E: what the program's stderr says instead of the program."""
    tool = languages.BY_NAME[order.language].tool
    return frames.encode(b"E", f"{tool} cannot be started: {error.strerror or error}\n".encode())


def never_started() -> bytes:
    """Frame X of such a program."""
    usage = {"cpuSeconds": 0, "maxRssBytes": 0, "wallSeconds": 0}
    return frames.encode_json(b"X", exitCode=_CANNOT_START, signal=None, **usage)
