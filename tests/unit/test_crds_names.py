"""Names, labels, ids and object keys."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_crds import names

KEY_PARTS = ("install", "kubecoderun", "abcdefghijklmnopqrstu", "code")


def test_session_names_are_new_and_of_the_shape_clients_expect() -> None:
    made = {names.session_name() for _ in range(1000)}
    assert len(made) == 1000
    assert all(
        names.front_end_session_pattern.fullmatch(name) and names.is_session_name(name) for name in made
    )


def test_file_id_leads_back_to_its_session() -> None:
    session = names.session_name()
    file = names.file_id(session)
    assert len(file) == 21
    assert file[:13] == session[:13]
    assert file != names.file_id(session)


@pytest.mark.parametrize("session", ["hello", "a" * 20, "0-1", "s" * 63])
def test_files_of_sessions_with_other_names(session: str) -> None:
    prefix = names.file_id_prefix(session)
    assert names.file_id_prefix(session) == prefix
    assert names.file_id_prefix(session + "x" if len(session) < 63 else "x") != prefix
    made = names.file_id(session)
    assert names.is_file_id(made)
    assert made.startswith(prefix)
    assert not session.startswith(prefix)


def test_the_prefix_of_a_name_is_the_same_for_ever() -> None:
    """It stands in stored keys: another one would lose the files of sessions that are there."""
    assert names.file_id_prefix("hello") == "ylyqb8jdc0o87"


@pytest.mark.parametrize("session", ["", "A" * 21, "a" * 21 + "\n", "a.b", "a/b", "s" * 64])
def test_no_files_of_sessions_that_cannot_be(session: str) -> None:
    with pytest.raises(ValueError, match="session"):
        names.file_id(session)


@given(st.from_regex(names._DNS_LABEL, fullmatch=True).filter(names.is_session_name))
def test_every_session_can_own_files(session: str) -> None:
    made = names.file_id(session)
    assert names.is_file_id(made)
    assert names.object_key("i", "n", session, made).endswith(f"/{session}/{made}")


@pytest.mark.parametrize("text", ["", "a" * 20, "a" * 22, "A" * 21, "a" * 21 + "\n", "code", "result.json"])
def test_not_file_ids(text: str) -> None:
    assert not names.is_file_id(text)


def test_pod_names_fit() -> None:
    pod = names.pod_name("p" * names.POOL_NAME_MAX_LENGTH)
    assert names.is_dns_label(pod)
    assert len(pod) == names.POOL_NAME_MAX_LENGTH + 9


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("python", True),
        ("3-x", True),
        ("p" * 40, True),
        ("p" * 41, False),
        ("", False),
        ("-a", False),
        ("a-", False),
        ("a.b", False),
        ("A", False),
        ("a\n", False),
        ("ä", False),
    ],
)
def test_pool_names(text: str, valid: bool) -> None:
    assert names.is_pool_name(text) is valid
    if not valid:
        with pytest.raises(ValueError, match="pool"):
            names.pod_name(text)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("PATH", True),
        ("_x1", True),
        ("KCR_X", False),
        ("KCR", True),
        ("1a", False),
        ("A=B", False),
        ("A" * 129, False),
    ],
)
def test_env_names(text: str, valid: bool) -> None:
    assert names.is_env_name(text) is valid


def test_expiry_buckets_sort_like_time() -> None:
    moment = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert names.expiry_bucket(moment) == "2026123123"
    assert names.expiry_bucket(moment + timedelta(seconds=1)) == "2027010100"
    assert names.expiry_bucket(moment.astimezone(timezone(timedelta(hours=5)))) == "2026123123"
    with pytest.raises(ValueError, match="time zone"):
        names.expiry_bucket(moment.replace(tzinfo=None))


def test_object_keys() -> None:
    assert names.object_key(*KEY_PARTS) == "install/kubecoderun/abcdefghijklmnopqrstu/code"
    assert (
        names.object_key("i", "n", "s", names.RESULT_OBJECT)
        == names.session_prefix("i", "n", "s") + "result.json"
    )


def test_keys_of_a_namespace() -> None:
    prefix = names.namespace_prefix("install", "kubecoderun")
    assert prefix == "install/kubecoderun/"
    assert names.object_key(*KEY_PARTS).startswith(prefix)
    for wrong in (("a/b", "n"), ("i", ""), ("i", ".."), ("", "n")):
        with pytest.raises(ValueError, match="DNS labels"):
            names.namespace_prefix(*wrong)


@given(
    part=st.integers(min_value=0, max_value=3),
    text=st.one_of(
        st.sampled_from(["", ".", "..", "a/b", "/", "../x", "a\\b", "a\0", "a\n", "a b"]), st.text()
    ),
)
def test_no_part_of_a_key_escapes_its_place(part: int, text: str) -> None:
    parts = list(KEY_PARTS)
    parts[part] = text
    try:
        key = names.object_key(*parts)
    except ValueError:
        return
    assert key.split("/") == parts
    assert not set(key.split("/")) & {"", ".", ".."}
    assert key.isascii()
    assert key.isprintable()


def test_labels_share_the_reserved_prefix() -> None:
    labels = [value for name, value in vars(names).items() if name.startswith("LABEL_")]
    assert len(set(labels)) == len(labels)
    assert all(label.startswith("kubecoderun.io/") for label in labels)
