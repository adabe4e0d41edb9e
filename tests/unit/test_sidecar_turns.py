"""Which inputs of a run are delivered to a pod that has had other runs, and what is said about whose turn it
is."""

from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_sidecar.answers import Owner, SessionRef, StateAnswer
from kubecoderun_sidecar.protocol import CancelRequest, InputFile, OutputFile, StartRequest
from kubecoderun_sidecar.turns import Turns


def file(path: str, id: str, query: str = "sig=1") -> InputFile:
    return InputFile(path, f"https://store/bucket/kcr/ns/session/{id}?{query}", 1)


def test_what_is_there_is_not_brought_again_whatever_its_grant() -> None:
    turns = Turns()
    assert turns.missing([file("a", "1"), file("b", "2")]) == [0, 1]
    turns.delivered([file("a", "1")])
    assert turns.missing([file("a", "1", "sig=2"), file("b", "2")]) == [1]


def test_another_version_of_a_file_is_brought() -> None:
    turns = Turns()
    turns.delivered([file("a", "1")])
    assert turns.missing([file("a", "9")]) == [0]
    assert turns.missing([file("other", "1")]) == [0]


def test_outputs_are_there() -> None:
    turns = Turns()
    turns.delivered([file("a", "1")])
    turns.collected([OutputFile("2", "a", 5, replaces=True)])
    assert turns.missing([file("a", "2")]) == []
    assert turns.missing([file("a", "1")]) == [0], "the version before is another file"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("123"), st.booleans()), max_size=30))
def test_missing_is_what_did_not_come_last(history: list[tuple[str, str, bool]]) -> None:
    """The model: the last id that a path was given, by a delivery or a collection."""
    turns, last = Turns(), dict[str, str]()
    for path, id, collected in history:
        if collected:
            turns.collected([OutputFile(id, path, 1)])
        else:
            turns.delivered([file(path, id)])
        last[path] = id
    for path in "abc":
        for id in "123":
            assert turns.missing([file(path, id)]) == ([] if last.get(path) == id else [0])


def test_messages_of_both_ages_are_understood() -> None:
    assert StartRequest.parse(b"{}").run is None
    assert StartRequest.parse(StartRequest(run="u").to_json()).run == "u"
    assert CancelRequest.parse(b"{}").run is None
    assert CancelRequest.parse(CancelRequest("u").to_json()).run == "u"
    older = b'{"owner":{"kind":"session","uid":"w"},"epoch":1,"run":"running","runtime":"warm"}'
    seen = StateAnswer.parse(older)
    assert (seen.owner, seen.run, seen.protocol) == (Owner("session", "w"), "running", "1.0")
    assert (seen.session, seen.reserved, seen.started) == (None, False, 0)
    state = StateAnswer(
        Owner("session", "w"), 1, "running", "warm", session=SessionRef("ns", "r", "u"), reserved=True
    )
    assert StateAnswer.parse(state.to_json()) == state
