"""What the store suite says in the end, and which settings of a store it takes."""

from pathlib import Path

import pytest

from store.exchange import Answer, UnfitError, expect
from store.target import Signer, Target
from store.verdict import Need, Result, verdicts

PUT = Need("PUT", "for everything")
FORMS = Need("POST policies", "to upload outputs", "KCR_STORE_UPLOADS=put")
GIVEN = {
    "KCR_STORE_ENDPOINT": "https://s3.example.org:9000/",
    "KCR_STORE_ACCESS_KEY": "access",
    "KCR_STORE_SECRET_KEY": "hush-hush",
}


def results(store: str, *passed: tuple[Need, bool]) -> list[Result]:
    return [Result(store, need, yes) for need, yes in passed]


def test_all_passed() -> None:
    assert verdicts(results("a", (PUT, True), (FORMS, True))) == ["a: works for KubeCodeRun (2 of 2 cases)"]


def test_only_what_a_setting_avoids_failed() -> None:
    (line,) = verdicts(results("a", (PUT, True), (FORMS, False), (FORMS, False)))
    assert line == (
        "a: works for KubeCodeRun with KCR_STORE_UPLOADS=put (1 of 3 cases; missing: POST policies)"
    )


def test_something_that_nothing_avoids_failed() -> None:
    (line,) = verdicts(results("a", (PUT, False), (FORMS, False)))
    assert line == "a: does NOT work for KubeCodeRun (0 of 2 cases; missing: POST policies, PUT)"


def test_each_store_has_its_line() -> None:
    both = [*results("a", (PUT, True)), *results("b", (PUT, False)), *results("a", (PUT, True))]
    assert [line.partition(" (")[0] for line in verdicts(both)] == [
        "a: works for KubeCodeRun",
        "b: does NOT work for KubeCodeRun",
    ]
    assert verdicts([]) == []


def test_a_failure_says_what_it_is_needed_for() -> None:
    assert PUT.explain() == "KubeCodeRun needs PUT for everything. No setting avoids it."
    assert FORMS.explain().endswith("to upload outputs. KCR_STORE_UPLOADS=put avoids it.")


def test_an_unexpected_answer_is_told_with_the_stores_own_words() -> None:
    body = b'<Error xmlns="urn:x"><Code>AccessDenied</Code><Message>No.</Message></Error>'
    with pytest.raises(UnfitError, match=r"^PUT: status 403 \(AccessDenied: No\.\) instead of 200 or 204$"):
        expect(Answer(403, {}, body), 200, 204, doing="PUT")
    with pytest.raises(UnfitError, match=r"^PUT: status 500 instead of 200$"):
        expect(Answer(500, {}, b"<Error>broken"), 200, doing="PUT")


def test_settings_of_a_store() -> None:
    target = Target.from_environment({**GIVEN, "KCR_STORE_VIRTUAL_HOSTS": "True"})
    assert target is not None
    assert (target.name, target.endpoint) == ("s3.example.org:9000", "https://s3.example.org:9000")
    assert (target.bucket, target.region, target.virtual_hosts) == ("kubecoderun", "us-east-1", True)
    assert "hush" not in repr(target)
    assert Target.from_environment({"KCR_STORE_ENDPOINT": ""}) is None


@pytest.mark.parametrize(
    ("virtual", "host", "path"),
    [("false", "s3.example.org", "/kubecoderun"), ("true", "kubecoderun.s3.example.org", "")],
)
def test_addresses_of_both_styles(virtual: str, host: str, path: str) -> None:
    target = Target.from_environment({**GIVEN, "KCR_STORE_VIRTUAL_HOSTS": virtual})
    assert target is not None
    signer = Signer(target)
    of_object = signer.url("PUT", "a/b", {"partNumber": "1"})
    of_bucket = signer.bucket_url("GET", {"list-type": "2", "prefix": "a/ü"})
    form = signer.form("a/", 10).url
    assert {url.host for url in (of_object, of_bucket, form)} == {host}
    assert {url.port for url in (of_object, of_bucket, form)} == {9000}
    assert (of_object.raw_path, of_bucket.raw_path, form.raw_path) == (
        f"{path}/a/b",
        path or "/",
        path or "/",
    )
    assert of_bucket.query["prefix"] == "a/ü"
    assert "X-Amz-Signature" in of_bucket.query
    assert not form.query
    assert not signer.unsigned("a/b").query
    assert signer.uploads == {"a/b"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KCR_STORE_SECRET_KEY", ""),
        ("KCR_STORE_ENDPOINT", "s3.example.org"),
        ("KCR_STORE_ENDPOINT", "https://user:hush@s3.example.org"),
        ("KCR_STORE_ENDPOINT", "https://s3.example.org/bucket"),
        ("KCR_STORE_VIRTUAL_HOSTS", "perhaps"),
        ("KCR_STORE_CA_FILE", "/does/not/exist"),
    ],
)
def test_bad_settings_are_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        Target.from_environment({**GIVEN, name: value})
    assert "hush" not in str(caught.value)


def test_the_suite_asks_for_the_settings_of_the_programs() -> None:
    """The names in docs/api-settings.md, so that one set of values serves both."""
    documented = (Path(__file__).parents[2] / "docs" / "api-settings.md").read_text(encoding="utf-8")
    source = (Path(__file__).parents[1] / "store" / "target.py").read_text(encoding="utf-8")
    for name in ("ENDPOINT", "BUCKET", "REGION", "ACCESS_KEY", "SECRET_KEY", "VIRTUAL_HOSTS", "CA_FILE"):
        assert f"`KCR_STORE_{name}`" in documented
        assert f'"KCR_STORE_{name}"' in source
