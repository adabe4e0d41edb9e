"""Names of files: which ones can be used, and how they look in HTTP."""

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_api import filenames
from kubecoderun_crds.files import is_file_path


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "données é.csv",
        ".env",
        "a..b",
        "...",
        "a/b/c.txt",
        "skills/x/SKILL.md",
        "a b  c",
        'quote".txt',
        "CON:|?*.txt",
        "/".join("abcdefghij"),
        "x" * 255,
        "ä" * 127,
        "/".join(["x" * 127] * 2),
        "emoji 😀.png",
    ],
)
def test_names_that_can_be_used(name: str) -> None:
    assert filenames.problem(name) is None


@pytest.mark.parametrize(
    ("name", "clause"),
    [
        ("", "is empty"),
        ("x" * 257, "is longer than 256 characters"),
        ("a\\b", "has a backslash"),
        ("a\0b", "has control or invisible characters"),
        ("a\nb", "has control or invisible characters"),
        ("a\tb", "has control or invisible characters"),
        ("a\x7fb", "has control or invisible characters"),
        ("a\x85b", "has control or invisible characters"),
        ("a\u202eb", "has control or invisible characters"),
        ("a\ud800b", "has control or invisible characters"),
        ("/etc/passwd", "is not relative"),
        ("/", "is not relative"),
        ("a/", "ends with a slash"),
        ("a//b", "has an empty part"),
        (".", "has a part that is . or .."),
        ("..", "has a part that is . or .."),
        ("../a", "has a part that is . or .."),
        ("a/./b", "has a part that is . or .."),
        ("a/../../b", "has a part that is . or .."),
        ("/".join("abcdefghijk"), "has more than 10 parts"),
        ("x" * 256, "has a part of more than 255 bytes"),
        ("ä" * 128, "has a part of more than 255 bytes"),
    ],
)
def test_names_that_cannot_be_used(name: str, clause: str) -> None:
    assert filenames.problem(name) == clause


@given(st.text("ab/.\\\n\t é\0\u200d\x85", max_size=30) | st.text(max_size=300))
def test_exactly_the_names_that_a_session_takes_can_be_used(name: str) -> None:
    usable = filenames.problem(name) is None
    if all(len(part.encode("utf-8", "surrogatepass")) <= 255 for part in name.split("/")):
        assert usable is is_file_path(name)
    else:
        assert not usable


@given(st.text("ab/.\\\n é\0", max_size=12))
def test_a_usable_name_stays_below_its_directory(name: str) -> None:
    if filenames.problem(name) is None:
        parts = name.split("/")
        assert "/".join(parts) == name
        assert not {"", ".", ".."} & set(parts)


@pytest.mark.parametrize(
    ("name", "extension", "content_type"),
    [
        ("a.csv", ".csv", "text/csv"),
        ("a/b.c/d.PNG", ".PNG", "image/png"),
        ("a.tar.gz", ".gz", "application/gzip"),
        ("Makefile", "", "application/octet-stream"),
        ("a.b/c", "", "application/octet-stream"),
        (".bashrc", "", "application/octet-stream"),
        ("x.unknown", ".unknown", "application/octet-stream"),
        ("t.xlsx", ".xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        ("n.ipynb", ".ipynb", "application/octet-stream"),
        ("page.html", ".html", "text/html"),
        ("a.json", ".json", "application/json"),
    ],
)
def test_extensions_and_types(name: str, extension: str, content_type: str) -> None:
    assert filenames.extension(name) == extension
    assert filenames.content_type(name) == content_type


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("plot.png", "attachment; filename=\"plot.png\"; filename*=UTF-8''plot.png"),
        ("a b.csv", "attachment; filename=\"a b.csv\"; filename*=UTF-8''a%20b.csv"),
        ("é/€.csv", "attachment; filename=\"___.csv\"; filename*=UTF-8''%C3%A9%2F%E2%82%AC.csv"),
        ('a"b%.csv', "attachment; filename=\"a_b_.csv\"; filename*=UTF-8''a%22b%25.csv"),
    ],
)
def test_the_name_in_a_header(name: str, value: str) -> None:
    assert filenames.disposition(name) == value


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_clients_read_the_name_back(name: str) -> None:
    value = filenames.disposition(name)
    assert value.isascii()
    assert value.isprintable()
    encoded = value.partition("filename*=UTF-8''")[2]
    assert unquote(encoded) == name
    assert not set(encoded) & set("\"';/ ")
