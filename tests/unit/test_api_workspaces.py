"""Which workspace a hint means, which pool has it, and what a profile that is asserted comes to."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_api import answers
from kubecoderun_api.answers import Answer
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.pools import Pool, choose_for_workspace
from kubecoderun_api.profiles import Profile, Refusal, expected
from kubecoderun_api.settings import Settings
from kubecoderun_api.wire import BadRequest
from kubecoderun_api.workspaces import hint_of, place
from kubecoderun_crds import names

KEY = b"key"
TEXT = st.one_of(st.none(), st.text("ab:.", max_size=3))


def caller(tenant: str | None = None, user: str | None = None, *, vouched: bool = False) -> Principal:
    return Principal(tenant=tenant, user=user, vouched=vouched)


def test_the_name_is_one_that_the_api_server_takes_and_http_does_not_serve() -> None:
    made = place(KEY, "python", "v2:conversation:" + "0" * 32, caller("tenant", "user"))
    assert names.is_session_name(made.name)
    assert not names.is_front_end_session_name(made.name)
    assert made.id.removeprefix("rt_") == made.name.removeprefix("ws-")
    assert len(made.id) == len("rt_") + 40


@given(st.lists(st.tuples(TEXT, TEXT, st.text("ab:.", min_size=1, max_size=3)), min_size=2, unique=True))
def test_others_never_get_the_same_workspace(callers: list[tuple[str | None, str | None, str]]) -> None:
    made = {place(KEY, "python", hint, caller(tenant, user)).name for tenant, user, hint in callers}
    assert len(made) == len(callers)


def test_naming_a_user_does_not_lead_to_what_a_token_has_vouched_for() -> None:
    vouched = place(KEY, "p", "h", caller("t", "u", vouched=True))
    assert vouched != place(KEY, "p", "h", caller("t", "u"))
    nobody = {place(KEY, "p", "h", caller("t", vouched=vouched)) for vouched in (False, True)}
    assert len(nobody) == 1, "a token that names no user vouches for nobody"


def test_replicas_agree_and_strangers_cannot_guess() -> None:
    mine = place(KEY, "p", "h", caller("t"))
    assert mine == place(KEY, "p", "h", caller("t"))
    assert mine == place(KEY, "p", "h", Principal(tenant="t", label="another key", admin=True))
    assert mine.name != place(b"other", "p", "h", caller("t")).name
    assert mine.name != place(KEY, "q", "h", caller("t")).name


@pytest.mark.parametrize("hint", ["x", "v3:0123456789ab:user.1_2-3", "a" * 128])
def test_hints(hint: str) -> None:
    assert hint_of({"runtime_session_hint": hint}, None) == hint
    assert hint_of({"runtime_session_hint": hint}, Profile.STATEFUL) == hint
    assert hint_of({"runtime_session_hint": hint}, Profile.DEFAULT) is None


@pytest.mark.parametrize("body", [{}, {"runtime_session_hint": None}, {"runtime_session_hint": ""}])
def test_no_hint(body: dict[str, Any]) -> None:
    assert hint_of(body, Profile.STATEFUL) is None


@pytest.mark.parametrize("hint", [1, ["a"], {}, True, " ", "a b", "a/b", "ü", "a\n", "a" * 129])
def test_what_is_no_hint(hint: object) -> None:
    with pytest.raises(BadRequest) as caught:
        hint_of({"runtime_session_hint": hint}, None)
    assert caught.value.status == 400
    assert "runtime_session_hint" in caught.value.body["message"]


def headers(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), *((b"x-codeapi-expected-profile", value.encode()) for value in values)]


def test_profiles_that_are_served() -> None:
    assert expected(headers(), stateful=True) is None
    assert expected(headers("stateful"), stateful=True) is Profile.STATEFUL
    assert expected(headers(" Default ", "default"), stateful=False) is Profile.DEFAULT


def test_a_profile_that_is_not_served() -> None:
    refusal = expected(headers("stateful"), stateful=False)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.body["error"]) == (409, "execution_profile_mismatch")
    assert (refusal.body["expected_profile"], refusal.body["actual_profile"]) == ("stateful", "default")


@pytest.mark.parametrize("values", [("",), ("other",), ("default", "stateful"), ("default,x",), ("ü",)])
def test_what_is_no_profile(values: tuple[str, ...]) -> None:
    refusal = expected(headers(*values), stateful=True)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.body["error"]) == (400, "invalid_execution_profile")


def pool(name: str, *languages: str, workspaces: int = 5, available: bool = True) -> Pool:
    return Pool(name, frozenset(languages), available, True, 10, 0, 30, 300, 600, workspaces)


def test_the_pool_of_workspaces_is_always_the_same_one() -> None:
    pools = [
        pool("a", "py"),
        pool("b", "py", "bash", available=False),
        pool("c", "bash", "py"),
        pool("d", "py", "bash", "js", workspaces=0),
    ]
    for language in ("py", "bash"):
        chosen = choose_for_workspace(pools, language)
        assert chosen is not None
        assert chosen.name == "b", "one place for both languages, whether it has ready pods or not"
    assert choose_for_workspace(pools, "js") is None


def test_what_the_client_is_told() -> None:
    told = answers.in_runtime_session(
        Answer(200, {"stdout": ""}, "x"), "rt_1", {"workspaceRun": {"number": 1}}
    )
    assert (told.body["runtime_session_id"], told.body["runtime_status"]) == ("rt_1", "new")
    again = answers.in_runtime_session(Answer(200, {}, "x"), "rt_1", {"workspaceRun": {"number": 2}})
    assert again.body["runtime_status"] == "reused"
    for answer, status in (
        (Answer(503, {}, "x"), {"workspaceRun": {"number": 2}}),
        (Answer(200, {}, "x"), {}),
    ):
        assert answers.in_runtime_session(answer, "rt_1", status) is answer


def test_the_key_for_names() -> None:
    store = {"store_endpoint": "http://s", "store_access_key": "a", "store_secret_key": "b"}
    assert Settings(auth="none").naming_key() == b""
    assert Settings(auth="none", **store).naming_key() == b"b"  # type: ignore[arg-type]
    assert Settings(auth="none", name_key="n", **store).naming_key() == b"n"  # type: ignore[arg-type]
