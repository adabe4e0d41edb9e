"""PID 1 of the runtime container: one loop over the sidecar, the spare and the program."""

from __future__ import annotations

import math
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

from kubecoderun_runner import frames, languages, plain
from kubecoderun_runner.builds import Builds
from kubecoderun_runner.channel import Channel
from kubecoderun_runner.collection import Collection
from kubecoderun_runner.delivery import Delivery, UndeliverableError
from kubecoderun_runner.environment import Bounds, Settings
from kubecoderun_runner.held import Held, start_spare
from kubecoderun_runner.inputs import Delivered
from kubecoderun_runner.launch import Process
from kubecoderun_runner.log import note
from kubecoderun_runner.memory import MemoryWatch, find_gauge
from kubecoderun_runner.orders import parse_index, parse_order
from kubecoderun_runner.program import Run, cpu_seconds_of, kill_everything, processes_but
from kubecoderun_runner.signals import open_signals, read_signals
from kubecoderun_runner.spare import Report, Spare
from kubecoderun_runner.toolcalls import ToolDesk
from kubecoderun_runner.toolprograms import offer
from kubecoderun_runner.turns import Turns
from kubecoderun_runner.workspace import is_full, open_folder

PROTOCOL: Final = 1
FEATURES: Final = ("again",)
"""What a sidecar may ask of this runner that older ones do not know. again: several programs in turn."""
_READ_BYTES: Final = 1 << 18


class Pid1:
    """Talks to the sidecar, and starts, watches and ends programs. Call `serve` once."""

    def __init__(
        self,
        channel: Channel,
        settings: Settings,
        env: dict[str, str],
        spare: Spare | Held | None,
        bounds: Bounds,
    ) -> None:
        self._channel = channel
        self._settings = settings
        self._env = env
        self._spare = spare
        self._bounds = bounds
        self._memory = MemoryWatch(find_gauge())
        self._report = Report()
        self._greeted = False
        """The sidecar knows that we are warm."""
        self._folder = open_folder(settings.workspace)
        self._delivery: Delivery | None = None
        self._refused = False
        """A delivery could not be taken. The sidecar hangs up once it has heard of it."""
        self._prepared: Delivery | None = None
        self._run: Run | None = None
        self._running: Delivery | None = None
        self._collection = Collection(self._folder)
        self._turns = Turns()
        self._skipping = False
        """What comes is the rest of a delivery that could not be taken."""
        self._tools: ToolDesk | None = None
        self._builds = Builds()
        self._selector = selectors.DefaultSelector()
        self._dropped: set[int] = set()
        """A spare that is not wanted any more and its shadow, until they have ended: no part of any run."""
        self._terminating = self._writing = self._congested = False

    def serve(self) -> None:
        """Work until SIGTERM; raises ChannelClosedError, FrameError or OSError when that is impossible."""
        self._listen_to_signals()
        self._selector.register(self._channel, selectors.EVENT_READ, self._on_sidecar)
        self._channel.send(
            frames.encode_json(
                b"H",
                protocol=PROTOCOL,
                languages=languages.installed(self._env["PATH"]),
                features=list(FEATURES),
            )
        )
        self._expect_spare()
        self._reap()
        while not self._terminating:
            for key, events in self._selector.select(self._patience()):
                handler: Callable[[int, int], None] = key.data
                handler(key.fd, events)
            self._keep_time()
            self._balance()

    # -- the spare

    def _expect_spare(self) -> None:
        """Without a spare we are warm at once; programs then start in plain interpreters."""
        if self._spare is None:
            self._warm()
        else:
            self._selector.register(self._spare.control, selectors.EVENT_READ, self._on_spare)

    def _on_spare(self, fd: int, _events: int) -> None:
        spare = self._spare
        if spare is None or fd != spare.control:
            return
        alive = spare.read()
        if spare.report is None and alive:
            return
        self._selector.unregister(spare.control)
        if spare.report is None:
            note("the spare interpreter ended before it was warm")
            spare.discard()
            self._spare = None
        else:
            self._report = spare.report
            spare.process.pass_on_noise()
        if not self._greeted:
            self._warm()

    def _warm(self) -> None:
        self._greeted = True
        for failure in self._report.failed:
            note(f"not preloaded: {failure}")
        failed = [line[:200] for line in self._report.failed[:20]]
        preloaded = [name for name in self._settings.preload if name.partition(".")[0] in self._report.loaded]
        limits = {
            "memoryBytes": self._memory.limit,
            "processes": self._bounds.processes,
            "openFiles": self._bounds.open_files,
        }
        self._channel.send(frames.encode_json(b"W", preloaded=preloaded, failed=failed, limits=limits))

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._dropped |= {self._spare.process.pid, self._report.shadow}
            if self._spare.report is None:
                self._selector.unregister(self._spare.control)
                os.kill(self._spare.process.pid, signal.SIGKILL)  # or it would go on loading its modules
            self._spare.discard()
            self._spare = None
            if self._report.shadow:
                os.kill(self._report.shadow, signal.SIGKILL)

    # -- the sidecar

    def _on_sidecar(self, _fd: int, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._channel.flush()
        if events & selectors.EVENT_READ and self._refused:
            self._channel.discard()
        elif events & selectors.EVENT_READ:
            self._take_frames()

    def _take_frames(self) -> None:
        try:
            for kind, payload in self._channel.receive():
                self._handle(kind, payload)
        except UndeliverableError as error:
            # Not the end of this process yet: the sidecar may be writing, and would find the connection
            # broken before it reads why.
            self._refused = True
            self._refuse(error)

    def _handle(self, kind: bytes, payload: memoryview | bytes) -> None:
        try:
            self._carry_out(kind, payload)
        except UndeliverableError as error:
            if not self._turns.more:
                raise
            # This delivery is over, but others may follow.
            self._delivery, self._skipping = None, True
            self._refuse(error)

    def _refuse(self, error: UndeliverableError) -> None:
        note(str(error))
        self._channel.send(frames.encode_json(b"F", message=str(error), kind=error.kind, input=error.index))

    def _carry_out(self, kind: bytes, payload: memoryview | bytes) -> None:
        match kind:
            case b"R" if self._run is None and (self._turns.more or not (self._delivery or self._prepared)):
                self._begin(bytes(payload))
            case b"N" | b"D" | b"C" | b"I" if self._skipping:
                return
            case b"N" | b"D" | b"C" | b"I" if self._delivery is not None:
                self._delivery.take(kind, payload)
                self._confirm()
            case b"G" if self._prepared is not None:
                self._start(self._prepared)
            case b"A" | b"V" if self._tools is not None or self._run is None:
                if self._tools is not None:  # else the program has ended
                    self._tools.take(kind, bytes(payload))
            case b"K":
                if self._run is not None and self._run.ending is None:
                    self._run.cancelled = True
                    self._stop(self._run)
            case b"T" if self._running is None:
                index = parse_index(frames.decode_json(bytes(payload)))
                self._channel.send(self._collection.take(index))
            case _:
                raise frames.FrameError(f"frame {kind!r} where it may not come")

    def _begin(self, payload: bytes) -> None:
        order = parse_order(frames.decode_json(payload))
        language = languages.BY_NAME.get(order.language)
        if language is None:
            raise frames.FrameError("a language that was not offered")
        self._collection.close()
        self._collection = Collection(self._folder)
        self._turns.clear_away()
        if self._tools is not None:
            self._tools.close()  # of an order that was given up before its start
        self._turns.more, self._skipping, self._prepared, self._tools = order.again, False, None, None
        self._delivery = Delivery(order, self._folder, language.source)
        self._turns.begin(self._delivery)
        self._delivery.begin()
        self._confirm()

    def _confirm(self) -> None:
        """Everything is there: get ready, so that the start itself is short."""
        delivery = self._delivery
        if delivery is None or not delivery.complete:
            return
        delivery.close()
        self._delivery, self._prepared = None, delivery
        order, name = delivery.order, delivery.source_name
        if order.tools:
            self._tools = offer(order, name, self._selector, self._channel.send, lambda: self._run)
        spare, folder = self._spare, self._settings.workspace
        if spare is not None and not (spare.report is not None and spare.fits(order, name, folder)):
            self._drop_spare()
        self._channel.send(frames.encode(b"P"))

    # -- the program

    def _start(self, delivery: Delivery) -> None:
        self._prepared, self._running = None, delivery
        self._channel.send(frames.encode(b"S"))
        used = 0.0
        process = None
        if self._spare is not None:
            used = cpu_seconds_of(self._spare.process.pid)
            process = self._wake_spare(self._spare, delivery)
        if process is None:
            used = 0.0
            process = self._launch(delivery)
        if process is None:
            return
        order = delivery.order
        stdin = memoryview(bytes(delivery.stdin))
        self._run = Run(process, stdin, order.timeout_seconds, used, order.output_bytes or sys.maxsize)
        self._selector.register(process.stdout, selectors.EVENT_READ, self._on_output)
        self._selector.register(process.stderr, selectors.EVENT_READ, self._on_output)
        self._feed_stdin(process.stdin, 0)

    def _wake_spare(self, spare: Spare | Held, delivery: Delivery) -> Process | None:
        self._spare = None
        try:
            return spare.go(delivery.source_name, delivery.order.args)
        except OSError as error:
            note(f"the spare interpreter is gone: {error}")
            spare.discard()
            return None

    def _launch(self, delivery: Delivery) -> Process | None:
        """Start a program the plain way. One that cannot be started has ended as in a shell."""
        try:
            return plain.start(delivery, self._env, self._builds)
        except OSError as error:
            self._channel.send(plain.complaint(delivery.order, error))
            self._report_end(plain.never_started())
            return None

    def _feed_stdin(self, fd: int, _events: int) -> None:
        run = self._run
        if run is None:
            return
        try:
            while run.stdin:
                run.stdin = run.stdin[os.write(fd, run.stdin) :]
        except BlockingIOError:
            if fd not in self._selector.get_map():
                self._selector.register(fd, selectors.EVENT_WRITE, self._feed_stdin)
            return
        except BrokenPipeError:
            run.stdin = run.stdin[:0]  # the program does not want it, which is its right
        self._close(fd)
        run.process.stdin = -1

    def _on_output(self, fd: int, _events: int) -> None:
        run = self._run
        if run is None:
            return
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return
        if data:
            kind = b"O" if fd == run.process.stdout else b"E"
            self._channel.send(frames.header(kind, len(data)), data)
            run.printed += len(data)
            if run.printed > run.output_bytes and run.alive:
                run.limit = "output"
                self._stop(run)
            return
        self._close(fd)
        if fd == run.process.stdout:
            run.process.stdout = -1
        else:
            run.process.stderr = -1
        self._finish_if_done()

    def _stop(self, run: Run) -> None:
        """End all processes; what they have written is still collected."""
        kill_everything()
        run.stopping()

    def _finish_if_done(self, *, now: bool = False) -> None:
        """Report the end once the program, all it started, and its output have ended."""
        run = self._run
        if run is None or (run.ending is None and not now):
            return
        if not now and (run.process.stdout >= 0 or run.process.stderr >= 0):
            return
        if not now and processes_but(self._report.shadow):
            return  # what else it started is waited for too: what that used counts. The shadow is not
        for fd in (run.process.stdin, run.process.stdout, run.process.stderr):
            if fd >= 0:
                self._close(fd)
        self._run = None
        self._congested = False
        self._report_end(frames.encode_json(b"X", **run.report()))

    def _report_end(self, ended: bytes) -> None:
        """Send frame X, and the list of the program's files if they are wanted."""
        delivery, self._running = self._running, None
        if self._tools is not None:
            self._tools.close()
            self._tools = None
        if self._turns.more:
            self._turns.ended()  # before anybody hears of the end
        if delivery is None or not delivery.order.files.count:
            self._channel.send(ended)
        else:
            inputs, limits = self._turns.before(delivery), delivery.order.files
            seen: dict[str, Delivered] | None = {} if self._turns.more else None
            self._collection.announce(ended, delivery.source_name, inputs, limits, self._channel.send, seen)
            if seen is not None:
                self._turns.known = seen
        if self._turns.more:
            self._renew_spare()

    def _renew_spare(self) -> None:
        """Make ready for the next program, which may begin while the new spare is still loading."""
        if self._spare is not None or self._terminating:
            return
        self._report = Report()
        self._spare = start_spare(self._settings, self._env)
        if self._spare is not None:
            self._selector.register(self._spare.control, selectors.EVENT_READ, self._on_spare)

    # -- time, signals, back-pressure

    def _patience(self) -> float | None:
        if self._run is None:
            return None
        due = min(self._run.deadline, self._memory.next_look) - time.monotonic()
        return None if due == math.inf else max(0.0, due)

    def _keep_time(self) -> None:
        run = self._run
        if run is None:
            return
        if self._memory.exceeded() and run.alive:
            run.limit = "memory"
            self._stop(run)
        if time.monotonic() < run.deadline:
            return
        if run.drain_until:
            self._finish_if_done(now=True)
        else:
            run.timed_out = run.ending is None
            self._stop(run)

    def _listen_to_signals(self) -> None:
        fd = open_signals({signal.SIGCHLD, signal.SIGTERM, signal.SIGINT})
        self._selector.register(fd, selectors.EVENT_READ, self._on_signal)

    def _on_signal(self, fd: int, _events: int) -> None:
        """The kubelet's SIGTERM ends us at once, and all processes with us. Programs have our uid and may
        send one too: theirs comes from inside and counts for nothing."""
        for number, sender in read_signals(fd):
            if number == signal.SIGTERM and sender == 0:
                self._terminating = True
        self._reap()

    def _reap(self) -> None:
        """Collect all children that have ended; as PID 1 also those that lost their parents."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                pid = 0
            if pid == 0:
                self._finish_if_done()
                return
            if self._run is not None and pid not in self._dropped:
                self._run.count(usage)
            self._dropped.discard(pid)
            self._on_end(pid, status)

    def _on_end(self, pid: int, status: int) -> None:
        run = self._run
        if run is not None and pid == run.process.pid and run.ending is None:
            run.main_ended(status)
            if run.limit is None and (is_full(self._settings.workspace) or is_full("/tmp")):
                run.limit = "disk"
            self._stop(run)
        elif self._spare is not None and pid == self._spare.process.pid and self._spare.report is not None:
            note("the spare interpreter ended while it waited")
            self._drop_spare()

    def _balance(self) -> None:
        """Ask to be told when the sidecar's socket takes more; let programs and files wait for it."""
        while self._collection.pulling and not self._channel.queued:
            self._channel.send(self._collection.piece())
        writing = self._channel.queued > 0
        if writing != self._writing:
            self._writing = writing
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
            self._selector.modify(self._channel, events, self._on_sidecar)
        run = self._run
        if run is None or self._channel.congested == self._congested:
            return
        self._congested = self._channel.congested
        for fd in (run.process.stdout, run.process.stderr):
            if fd >= 0 and self._congested:
                self._selector.unregister(fd)
            elif fd >= 0:
                self._selector.register(fd, selectors.EVENT_READ, self._on_output)

    def _close(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)
        os.close(fd)
