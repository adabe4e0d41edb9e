"""When a silent node counts as gone: soon, but never because of a pause of the sidecar or of the operator."""

from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_operator.presence import KNOCK_SECONDS, Knock, Presence, Verdict
from kubecoderun_operator.settings import Settings

PATIENCE = Settings().node_silence_seconds


def knocks(presence: Presence, *results: Knock, takes: float = KNOCK_SECONDS) -> float:
    """Knock whenever it is time, with these results; the moment of the last one's end."""
    now = 0.0
    for result in results:
        began = max(now, presence.next_knock())
        now = began + takes
        presence.knocked(result, began, now)
    return now


def test_while_heartbeats_come_nobody_knocks() -> None:
    presence = Presence(0.0, PATIENCE)
    for second in range(1, 20):
        assert presence.next_knock() > second
        presence.hear(float(second))


def test_a_node_without_power_is_found_out_within_five_seconds() -> None:
    presence = Presence(0.0, PATIENCE)
    now = 0.0
    while presence.verdict(now) is Verdict.THERE:
        began = max(now, presence.next_knock())
        now = began + KNOCK_SECONDS
        presence.knocked(Knock.SILENT, began, now)
    assert presence.verdict(now) is Verdict.NODE_GONE
    # The last sign came up to a second before the end, so this is the longest anybody waits.
    assert PATIENCE <= now <= 4.5


def test_one_lost_packet_is_no_evidence() -> None:
    presence = Presence(0.0, PATIENCE)
    now = knocks(presence, Knock.SILENT, Knock.SILENT, Knock.SILENT, Knock.TAKEN)
    assert presence.verdict(now + 100) is Verdict.THERE


def test_a_node_that_is_cut_off_for_less_than_the_patience_is_there() -> None:
    presence = Presence(0.0, PATIENCE)
    now = knocks(presence, Knock.SILENT, Knock.SILENT, Knock.SILENT)
    presence.hear(now)
    assert presence.verdict(now) is Verdict.THERE
    assert knocks(presence, Knock.SILENT) > now + 1
    assert presence.verdict(now + 3) is Verdict.THERE


def test_a_sidecar_that_stands_still_is_left_alone_for_ever() -> None:
    presence = Presence(0.0, PATIENCE)
    now = knocks(presence, *[Knock.TAKEN] * 50, takes=0.001)
    assert presence.verdict(now) is Verdict.THERE
    assert now > 90, "and is not knocked at all the time"


def test_where_nothing_listens_nothing_comes_any_more() -> None:
    presence = Presence(0.0, PATIENCE)
    now = knocks(presence, Knock.REFUSED, takes=0.001)
    assert presence.verdict(now) is Verdict.THERE
    now = knocks(presence, Knock.REFUSED, takes=0.001)
    assert presence.verdict(now) is Verdict.SIDECAR_GONE


def test_an_operator_that_was_held_up_has_seen_nothing() -> None:
    """Stopped for a minute in the middle of a knock, its timers all run out at once."""
    presence = Presence(0.0, PATIENCE)
    presence.knocked(Knock.SILENT, 1.5, 61.5)
    assert presence.verdict(61.5) is Verdict.THERE
    now = 61.5
    for _ in range(3):
        presence.knocked(Knock.SILENT, now, now + KNOCK_SECONDS)
        now += KNOCK_SECONDS
        assert presence.verdict(now) is Verdict.THERE


@given(st.lists(st.sampled_from([*Knock, "heard", "held up"]), max_size=40), st.data())
def test_a_node_is_gone_only_after_silence_and_four_knocks_in_a_row(
    happens: list[Knock | str], data: st.DataObject
) -> None:
    presence = Presence(0.0, PATIENCE)
    now, heard, row = 0.0, 0.0, 0
    for what in happens:
        now += data.draw(st.floats(0.0, 3.0))
        if what == "heard":
            presence.hear(now)
            heard, row = now, 0
        elif what == "held up":
            presence.knocked(Knock.SILENT, now, now + 10)
            now, row = now + 10, 0
        elif isinstance(what, Knock):
            presence.knocked(what, now, now + KNOCK_SECONDS)
            now, row = now + KNOCK_SECONDS, row + 1 if what is Knock.SILENT else 0
        if presence.verdict(now) is Verdict.NODE_GONE:
            assert row >= 4
            assert now - heard >= PATIENCE
