"""The cases of the hang-up: which client libraries, against which server, with which result. No I/O.

A LibreChat process makes its file calls with axios and its runs with node-fetch, over one pool of
connections. follow-redirects, inside axios, leaves a listener on a connection that destroys it when it has
been silent too long; Node's pool arms that timer, with 5 seconds or one less than the server's Keep-Alive
header announces.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from client.packages import ALWAYS_TAINTS_FROM, AXIOS, GENERATIONS, Generation

RUN_SECONDS: Final = 9.0
POOL_SECONDS: Final = 5.0
"""Node's idle time of a pooled connection."""
CURES: Final = {
    "no cure": {"KCR_CLOSE_CONNECTIONS": "false", "KCR_HEARTBEAT": "false"},
    "close": {"KCR_CLOSE_CONNECTIONS": "true", "KCR_HEARTBEAT": "false"},
    "heartbeat": {"KCR_CLOSE_CONNECTIONS": "false", "KCR_HEARTBEAT": "true"},
    "defaults": {},
}
"""Settings of the real front ends, by the name they have here."""
CLOSING: Final = ("close", "defaults")
OLD_AND_NEW: Final = ("1.12.1", "1.18.1")
"""An axios that leaves its listener only after a call with a time limit, and one that always does."""
EARLIEST, LATEST_SECONDS = 0.7, 3.0
"""When a failure counts as one of a timer: from this share of its time, to so many seconds after it."""


@dataclass(frozen=True)
class Case:
    """One run after some calls, and what becomes of it."""

    id: str
    order: dict[str, Any]
    """What hangup.cjs is told, but for the address of a front end."""
    front_end: str | None
    """Which of CURES serves it; None for hangup.cjs's own server."""
    reused: bool
    """Whether the run goes over a connection of the calls before it."""
    fails_after: float | None = None
    """Seconds of silence that kill it; None: it is answered."""
    generation: Generation | None = None
    """Whose execute_code makes the run; None: it is a plain fetch."""

    @property
    def seconds(self) -> float:
        """How long the run takes."""
        return float(self.order.get("seconds", RUN_SECONDS))


@dataclass
class Collection:
    """Cases, each under a name of its own."""

    cases: list[Case] = field(default_factory=list)

    def add(
        self,
        name: str,
        order: dict[str, Any],
        front_end: str | None,
        *,
        reused: bool,
        fails_after: float | None = None,
        generation: Generation | None = None,
    ) -> None:
        self.cases.append(Case(name, {"id": name, **order}, front_end, reused, fails_after, generation))


def taints(axios: str, timeout: int | None) -> bool:
    """Whether a call with this axios leaves the listener behind."""
    version = tuple(int(part) for part in axios.split("."))
    return timeout is not None or version >= ALWAYS_TAINTS_FROM


def calls(axios: str, timeout: int | None, **more: Any) -> dict[str, Any]:
    """The part of an order that says what happens before the run."""
    return {"axios": f"axios-{axios}", "timeout": timeout, **more}


def titled(axios: str, timeout: int | None) -> str:
    return f"axios {axios} {'with' if timeout else 'without'} timeout"


def all_cases() -> list[Case]:
    """Every case there is."""
    made = Collection()
    for axios in AXIOS:
        for timeout in (5000, None):
            versions_against_front_ends(made, axios, timeout)
            versions_against_other_servers(made, axios, timeout)
    for axios in OLD_AND_NEW:
        variants(made, axios)
        other_calls(made, axios)
        programmatic(made, axios)
    the_tool(made)
    the_programmatic_tool(made)
    return made.cases


def versions_against_front_ends(made: Collection, axios: str, timeout: int | None) -> None:
    """Each cure alone, both, and none, which is what proves that these tests can fail."""
    for cure in CURES:
        dies = cure == "no cure" and taints(axios, timeout)
        made.add(
            f"{cure}, {titled(axios, timeout)}",
            calls(axios, timeout),
            cure,
            reused=cure not in CLOSING,
            fails_after=POOL_SECONDS if dies else None,
        )


def versions_against_other_servers(made: Collection, axios: str, timeout: int | None) -> None:
    """What servers do to a silent run, and what does not help: a longer Keep-Alive, a single early byte."""
    bad = taints(axios, timeout)
    servers: dict[str, tuple[dict[str, Any], float | None]] = {
        "no hint": ({}, POOL_SECONDS),
        "hint of 75 s": ({"hintSeconds": 75}, POOL_SECONDS),
        "hint of 5 s": ({"hintSeconds": 5}, 4.0),
        "hint of 2 s": ({"hintSeconds": 2}, 1.0),
        "early byte": ({"answer": "early byte"}, POOL_SECONDS),
        "spaces": ({"answer": "spaces"}, None),
        "102 Processing": ({"answer": "processing"}, None),
        "closing": ({"close": True}, None),
        # the hint of a proxy can make the silence before the first space too long
        "spaces, hint of 2 s": ({"answer": "spaces", "hintSeconds": 2}, 1.0),
    }
    for name, (server, after) in servers.items():
        made.add(
            f"server with {name}, {titled(axios, timeout)}",
            calls(axios, timeout, server=server),
            None,
            reused=not server.get("close", False),
            fails_after=after if bad else None,
        )


def variants(made: Collection, axios: str) -> None:
    """Other ways to call, against a front end without a cure: what the fault depends on, and what not."""

    def add(name: str, order: dict[str, Any], *, reused: bool, fails_after: float | None = None) -> None:
        made.add(f"{name}, axios {axios}", order, "no cure", reused=reused, fails_after=fails_after)

    for timeout in (4000, 15_000):
        add(f"timeout of {timeout} ms", calls(axios, timeout), reused=True, fails_after=POOL_SECONDS)
    add("an agent that keeps nothing", calls(axios, 5000, ownAgent=True), reused=False)
    add("Node's own fetch", calls(axios, 5000, client="undici"), reused=False)
    add("a run of three seconds", calls(axios, 5000, seconds=3), reused=True)
    add("a pause over the pool's time", calls(axios, 5000, pause=5700, seconds=6), reused=False)
    add("no call before", {"axios": None}, reused=False)


def other_calls(made: Collection, axios: str) -> None:
    """Every call that LibreChat makes with axios taints; closing after each of them helps."""
    sequences = {
        "upload": ["upload"],
        "object": ["object"],
        "download": ["download"],
        "upload, list twice": ["upload", "list", "list"],
    }
    for name, before in sequences.items():
        for cure in ("no cure", "close"):
            made.add(
                f"{cure}, {name}, axios {axios}",
                calls(axios, 5000, before=before),
                cure,
                reused=cure not in CLOSING,
                fails_after=POOL_SECONDS if cure == "no cure" else None,
            )


def programmatic(made: Collection, axios: str) -> None:
    """The other address that runs programs is cured like the first."""
    for cure in CURES:
        made.add(
            f"{cure}, programmatic, axios {axios}",
            calls(axios, 5000, client="programmatic"),
            cure,
            reused=cure not in CLOSING,
            fails_after=POOL_SECONDS if cure == "no cure" else None,
        )


def the_programmatic_tool(made: Collection) -> None:
    """The same with the tool of the newest client."""
    generation = GENERATIONS[-1]
    for cure in CURES:
        made.add(
            f"{cure}, run_tools_with_code of {generation.agents}",
            calls(generation.axios, 5000, client="tools"),
            cure,
            reused=cure not in CLOSING,
            fails_after=POOL_SECONDS if cure == "no cure" else None,
            generation=generation,
        )


def the_tool(made: Collection) -> None:
    """The same with the tool that models call."""
    for generation in GENERATIONS:
        for cure in CURES:
            made.add(
                f"{cure}, execute_code of {generation.agents}",
                calls(generation.axios, 5000, client="tool"),
                cure,
                reused=cure not in CLOSING,
                fails_after=POOL_SECONDS if cure == "no cure" else None,
                generation=generation,
            )
