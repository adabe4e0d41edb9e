"""Which pool serves a language, and when its queue is too long."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_api.pools import Pool, PoolBook, choose, excess_wait, read_pool


def resource(name: str, *languages: str, available: bool | None = None, **spec: Any) -> dict[str, Any]:
    conditions = [] if available is None else [{"type": "Available", "status": str(available)}]
    runtime = {"image": "i", "languages": list(languages) or ["py"]}
    return {
        "metadata": {"name": name},
        "spec": {"runtime": runtime, **spec},
        "status": {"conditions": conditions},
    }


def test_facts_of_a_pool_and_their_defaults() -> None:
    assert read_pool({"metadata": {"name": "p"}, "spec": {"runtime": {"image": "i"}}}) == Pool(
        name="p",
        languages=frozenset({"py"}),
        available=False,
        waits=True,
        wait_seconds=60,
        waiting=0,
        timeout_seconds=30,
        max_timeout_seconds=300,
        ttl_seconds=600,
        workspaces=20,
    )
    pool = read_pool(resource("p", "js", available=True, onEmpty={"policy": "Reject"}))
    assert (pool.available, pool.waits, pool.languages) == (True, False, frozenset({"js"}))


@pytest.mark.parametrize(("requested", "limit"), [(None, 30), (10, 10), (300, 300), (301, 300)])
def test_the_time_limit_of_a_run(requested: int | None, limit: int) -> None:
    pool = read_pool(resource("p"))
    assert pool.time_limit(requested) == limit
    assert pool.longest_wait(requested) == 60 + limit
    assert pool.longest_turn(requested) == 120 + limit, "for its pod, and for its turn"
    assert read_pool(resource("p", onEmpty={"policy": "Reject"})).longest_wait(requested) == limit


POOLS = st.builds(
    lambda names: [
        read_pool(resource(name, language, available=available))
        for name, (language, available) in names.items()
    ],
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3),
        st.tuples(st.sampled_from(["py", "js"]), st.booleans()),
        max_size=6,
    ),
)


@given(POOLS, st.randoms())
def test_the_choice_does_not_depend_on_the_order(pools: list[Pool], random: Any) -> None:
    chosen = choose(pools, "py")
    random.shuffle(pools)
    assert choose(pools, "py") == chosen
    able = sorted((pool for pool in pools if "py" in pool.languages), key=lambda pool: pool.name)
    ready = [pool for pool in able if pool.available]
    assert chosen == (ready or able or [None])[0]


def test_the_book_follows_the_watch() -> None:
    book = PoolBook()
    assert not book.known
    assert book.choose("py") is None
    assert book.replace([resource("b"), resource("broken", replicas=-1)]) == ["broken"]
    assert book.known
    assert book.choose("py").name == "b"  # type: ignore[union-attr]
    assert book.apply("ADDED", resource("a", available=True)) == []
    assert book.choose("py").name == "a"  # type: ignore[union-attr]
    assert book.apply("MODIFIED", resource("a", "js")) == []
    assert book.languages() == ["js", "py"]
    gone = resource("b")
    gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert book.apply("MODIFIED", gone) == []
    assert book.choose("py") is None
    assert book.apply("DELETED", resource("a")) == []
    assert book.languages() == []
    book.replace([resource("c")])
    assert book.languages() == ["py"]


@pytest.mark.parametrize(
    ("waiting", "seconds_per_pod", "excess"),
    [(0, 1.0, None), (10, 1.0, None), (11, 1.0, 1), (100, 0.35, 25), (1000, 0.0, None)],
)
def test_a_queue_longer_than_the_wait(waiting: int, seconds_per_pod: float, excess: int | None) -> None:
    crowded = resource("p", onEmpty={"waitSeconds": 10})
    crowded["status"]["waitingSessions"] = waiting
    assert excess_wait(read_pool(crowded), seconds_per_pod) == excess


def test_a_pool_that_rejects_has_no_queue() -> None:
    crowded = resource("p", onEmpty={"policy": "Reject"})
    crowded["status"]["waitingSessions"] = 1000
    assert excess_wait(read_pool(crowded), 1.0) is None
