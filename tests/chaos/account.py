"""What became of the calls of one victim's rounds: callers, sessions and the node's kernel compared.
No I/O."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

Object = dict[str, Any]
TERMINAL = frozenset({"Succeeded", "Failed", "TimedOut", "Cancelled", "Held"})


@dataclass(frozen=True)
class Call:
    """One call of the front end, with its answer."""

    tag: str
    """What the program prints, and what its process is called."""
    began: float
    seconds: float
    outcome: str
    """right; told (an error, as a status or in stderr); broken (the connection, on the way); refused (nobody
    listened); silent (nothing came in time); wrong (another output than its own)."""
    said: str = ""
    """The error that was told."""


@dataclass(frozen=True)
class Figures:
    """The line of one victim."""

    victim: str
    strikes: int
    calls: int
    right: int
    told: int
    broken: int
    refused: int
    sessions: int
    reasons: dict[str, int]
    unseen: int
    """Programs with the right answer whose process the node's sampler has missed."""
    lost: int
    doubled: int
    longest: float
    """Seconds that the slowest answer took, of whatever kind."""
    recovery: float | None
    """Seconds from a strike to the first right answer to a call that began after it; the longest. None if
    there was no such answer once."""
    faults: tuple[str, ...]
    """A sentence for each call that was lost or doubled, and whatever else should not have been."""

    def as_json(self) -> Object:
        return asdict(self)


def figures(
    victim: str,
    strikes: Sequence[float],
    calls: Sequence[Call],
    sessions: Sequence[Object],
    processes: Mapping[str, Set[int]],
    *,
    counted: bool = True,
    troubles: Sequence[str] = (),
) -> Figures:
    """strikes: when. sessions: all of the time, as last seen. processes: of each tag, as the node's kernel
    had them; counted: whether somebody looked. troubles: what else should not have been."""
    faults = list(troubles)
    lost, doubled = set[str](), set[str]()
    of_tag: dict[str, list[Object]] = defaultdict(list)
    for session in sessions:
        code = session["spec"]["request"].get("code", "")
        for tag in (call.tag for call in calls if call.tag in code):
            of_tag[tag].append(session)
    for call in calls:
        own, started = of_tag[call.tag], processes.get(call.tag, set())
        if call.outcome in ("silent", "wrong"):
            lost.add(call.tag)
            faults.append(f"{call.tag}: no answer of its own ({call.outcome} {call.said})".rstrip(" )") + ")")
        for session in own:
            status = session.get("status") or {}
            if status.get("phase") not in TERMINAL or not status.get("reason"):
                lost.add(call.tag)
                faults.append(f"{call.tag}: session {session['metadata']['name']} has no end: {status}")
        if len(started) > 1:
            doubled.add(call.tag)
            faults.append(f"{call.tag}: started {len(started)} times")
        if len(own) > 1:
            doubled.add(call.tag)
            faults.append(f"{call.tag}: {len(own)} sessions")
    ours = [session for found in of_tag.values() for session in found]
    outcomes = Counter(call.outcome for call in calls)
    right = [call for call in calls if call.outcome == "right"]
    return Figures(
        victim=victim,
        strikes=len(strikes),
        calls=len(calls),
        right=outcomes["right"],
        told=outcomes["told"],
        broken=outcomes["broken"],
        refused=outcomes["refused"],
        sessions=len(ours),
        reasons=dict(Counter(str((each.get("status") or {}).get("reason")) for each in ours)),
        unseen=sum(call.tag not in processes for call in right) if counted else len(right),
        lost=len(lost),
        doubled=len(doubled),
        longest=round(max((call.seconds for call in calls if call.outcome != "refused"), default=0.0), 1),
        recovery=_longest_recovery(strikes, right),
        faults=tuple(faults),
    )


def _longest_recovery(strikes: Sequence[float], right: Sequence[Call]) -> float | None:
    longest = 0.0
    for strike in strikes:
        later = [call.began + call.seconds - strike for call in right if call.began >= strike]
        if not later:
            return None
        longest = max(longest, min(later))
    return round(longest, 1)


def table(lines: Sequence[Figures]) -> str:
    """For people."""
    head = (
        f"{'victim':<12}{'strikes':>8}{'calls':>7}{'right':>7}{'told':>6}{'broken':>8}{'refused':>9}"
        f"{'lost':>6}{'doubled':>9}{'longest':>9}{'recovery':>10}  reasons"
    )
    rows = [
        f"{line.victim:<12}{line.strikes:>8}{line.calls:>7}{line.right:>7}{line.told:>6}{line.broken:>8}"
        f"{line.refused:>9}{line.lost:>6}{line.doubled:>9}{line.longest:>7.1f} s"
        f"{_seconds(line.recovery):>10}  "
        + ", ".join(f"{count} {reason}" for reason, count in sorted(line.reasons.items()))
        for line in lines
    ]
    total = (
        f"{'all':<12}{sum(line.strikes for line in lines):>8}{sum(line.calls for line in lines):>7}"
        f"{sum(line.right for line in lines):>7}{sum(line.told for line in lines):>6}"
        f"{sum(line.broken for line in lines):>8}{sum(line.refused for line in lines):>9}"
        f"{sum(line.lost for line in lines):>6}{sum(line.doubled for line in lines):>9}"
    )
    return "\n".join([head, *rows, total])


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
