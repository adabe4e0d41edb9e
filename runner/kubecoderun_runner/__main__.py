"""Entry point of the runtime container: confine, warm up, connect, serve."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from kubecoderun_runner import frames
from kubecoderun_runner.channel import Channel, ChannelClosedError, connect
from kubecoderun_runner.confine import ConfinementError, apply_limits, apply_seccomp, hide_from_programs
from kubecoderun_runner.environment import (
    FAMILIES,
    Bounds,
    SettingsError,
    program_environment,
    read_settings,
)
from kubecoderun_runner.held import start_spare
from kubecoderun_runner.landlock import apply_landlock
from kubecoderun_runner.log import note
from kubecoderun_runner.pid1 import Pid1


def fail(text: str) -> NoReturn:
    """End with the reason in the container's log; the sidecar sees the connection close."""
    note(text)
    sys.exit(1)


def main() -> None:
    """Run until the sidecar is gone or SIGTERM comes."""
    if os.getpid() != 1:
        fail("this must be process 1 of its container: it ends runs by ending everything else")
    try:
        settings = read_settings(os.environ)
        os.chdir(settings.workspace)
        hide_from_programs()
        bounds = apply_limits(settings.processes, settings.open_files)
        if not apply_landlock(settings.workspace, network=settings.network != "None"):
            note("this kernel has no Landlock: what programs can write to is up to the pod alone")
        apply_seccomp(FAMILIES[settings.network])
        env = program_environment(os.environ)
        # loads its modules while the sidecar starts
        spare = start_spare(settings, env)
        channel = Channel(connect(settings.channel, settings.connect_seconds))
    except (SettingsError, ConfinementError, ChannelClosedError, OSError) as error:
        fail(str(error))
    try:
        Pid1(channel, settings, env, spare, Bounds(*bounds)).serve()
    except ChannelClosedError as error:
        fail(str(error))
    except (frames.FrameError, OSError) as error:
        message = str(error)[:500]
        try:
            channel.send(frames.encode_json(b"F", message=message))
        except ChannelClosedError as gone:
            note(str(gone))
        fail(message)


if __name__ == "__main__":
    main()
