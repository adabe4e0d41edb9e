"""Reading multipart/form-data: whatever the pieces, names and contents; and refusing what is none."""

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubecoderun_api import forms
from kubecoderun_api.forms import Event, FileBegins, FileContent, FileEnds, Form, FormError
from kubecoderun_crds.pool import MAX_FILES

BOUNDARY = "----WebKitFormBoundary7MA4"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(disposition: str, content: bytes = b"", *headers: str) -> bytes:
    lines = [f"--{BOUNDARY}", f"Content-Disposition: {disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content + b"\r\n"


def text(name: str, value: str) -> bytes:
    return part(f'form-data; name="{name}"', value.encode())


def file(name: str, content: bytes = b"x", field: str = "file") -> bytes:
    return part(
        f'form-data; name="{field}"; filename="{name}"', content, "Content-Type: application/octet-stream"
    )


END = f"--{BOUNDARY}--\r\n".encode()


def read(
    body: bytes, content_type: str = TYPE, cuts: list[int] | None = None
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Files and fields of a form that is fed in pieces."""
    form = Form(content_type)
    events: list[Event] = []
    places = sorted({min(cut, len(body)) for cut in cuts or []} | {0, len(body)})
    for start, end in pairwise(places):
        events += form.feed(body[start:end])
    form.finish()
    return contents(events), form.fields


def contents(events: list[Event]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    current = None
    for event in events:
        match event:
            case FileBegins(name):
                assert current is None
                current, files[name] = name, b""
            case FileContent(data):
                files[current] += data  # type: ignore[index]
            case FileEnds():
                assert current is not None
                current = None
    return files


def refused(body: bytes, content_type: str = TYPE) -> str:
    with pytest.raises(FormError) as caught:
        read(body, content_type)
    return str(caught.value)


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).filter(
    lambda name: '"' not in name and "\\" not in name
)
CONTENTS = st.binary(max_size=300) | st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"--", f"\r\n--{BOUNDARY}"[:-1].encode(), b"\r\n--", b"x"])
).map(b"".join)


@settings(max_examples=300)
@given(
    st.dictionaries(NAMES, CONTENTS, min_size=1, max_size=5),
    st.dictionaries(
        st.sampled_from(["kind", "id", "version", "read_only", "entity_id"]),
        st.text(st.characters(exclude_categories=["Cs"])),
    ),
    st.lists(st.integers(0, 3000), max_size=12),
    st.randoms(),
)
def test_files_and_fields_come_out_as_they_went_in(
    files: dict[str, bytes], fields: dict[str, str], cuts: list[int], random: object
) -> None:
    parts = [file(name, content) for name, content in files.items()]
    parts += [text(name, value) for name, value in fields.items()]
    random.shuffle(parts)  # type: ignore[attr-defined]
    expected = files, fields
    made = read(b"".join(parts) + END, cuts=cuts)
    assert (made[0], made[1]) == expected


def test_byte_by_byte() -> None:
    body = text("entity_id", "agent_1") + file("données é/a b.csv", b"\r\n--" + b"1,2\r\n") + END
    assert read(body, cuts=list(range(len(body)))) == (
        {"données é/a b.csv": b"\r\n--1,2\r\n"},
        {"entity_id": "agent_1"},
    )


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="file"; filename="plain.csv"', "plain.csv"),
        ("form-data; name=file; filename=plain.csv", "plain.csv"),
        ('form-data; filename="a.csv"; name="file"', "a.csv"),
        ('FORM-DATA ; NAME = "file" ; FileName = "a.csv" ', "a.csv"),
        ('form-data; name="file"; filename="dir/sub dir/ä.csv"', "dir/sub dir/ä.csv"),
        ('form-data; name="file"; filename="a;b=c.csv"', "a;b=c.csv"),
        ('form-data; name="file"; filename="a\\"b.csv"', 'a"b.csv'),
        ('form-data; name="file"; filename="a"b.csv"', 'a"b.csv'),
        ('form-data; name="file"; filename="a\\\\b.csv"', "a\\b.csv"),
        ('form-data; name="file"; filename="C:\\dir\\b.csv"', "C:\\dir\\b.csv"),
        ('form-data; name="file"; filename="%22 100%.csv"', "%22 100%.csv"),
        ('form-data; name="file"; filename=""', ""),
        ("form-data; name=\"file\"; filename*=UTF-8''%e2%82%ac%20rates.csv", "€ rates.csv"),
        ('form-data; name="file"; filename="x"; filename*=utf-8\'de\'a%2Fb', "a/b"),
        ("form-data; name=\"file\"; filename*=iso-8859-1''%e9.csv", "é.csv"),
        ('form-data; name="file"; filename="first"; filename="second"', "first"),
        ('form-data; name="file"; filename="a.csv";', "a.csv"),
    ],
)
def test_spellings_of_a_name(disposition: str, name: str) -> None:
    assert read(part(disposition, b"x") + END)[0] == {name: b"x"}


@pytest.mark.parametrize(
    ("body", "text_of_it"),
    [
        (b"", "The form ends in the middle."),
        (b"hello", "The form is malformed."),
        (END, "There is no part with a file"),
        (text("a", "b") + END, "There is no part with a file"),
        (text("file", "no file name") + END, "There is no part with a file"),
        (file("a"), "The form ends in the middle."),
        (file("a")[:-10], "The form ends in the middle."),
        (file("a") + END[:-4], "The form ends in the middle."),
        (file("a", field="document") + END, "must be called file or files"),
        (part('attachment; name="file"; filename="x"') + END, "no Content-Disposition of form-data"),
        (part('form-data; filename="x"') + END, "no Content-Disposition of form-data"),
        (part("form-data") + END, "no Content-Disposition of form-data"),
        (part('form-data; name="file"; =') + END, "malformed Content-Disposition"),
        (f"--{BOUNDARY}\r\n\r\nx\r\n".encode() + END, "no Content-Disposition of form-data"),
        (
            part("form-data; name=file; filename*=UTF-8''%ff") + END,
            "The name of a file is not UTF-8.",
        ),
        (part("form-data; name=file; filename*=koi8''x") + END, "not as in RFC 5987"),
        (file("a").replace(b'"a"', b'"\xff"') + END, "A header is not UTF-8."),
        (text("kind", "x").replace(b"x\r\n", b"\xff\r\n") + END, "A field is not UTF-8."),
        (
            part('form-data; name="file"; filename="x"', b"eA==", "Content-Transfer-Encoding: base64") + END,
            "Content-Transfer-Encoding",
        ),
        (part('form-data; name="file"; filename="x"', b"", "bad header: x") + END, "malformed"),
    ],
)
def test_what_is_no_form_with_a_file(body: bytes, text_of_it: str) -> None:
    assert text_of_it in refused(body)


@pytest.mark.parametrize(
    ("content_type", "text_of_it"),
    [
        ("", "Invalid content type. Must be multipart/form-data."),
        ("application/json", "Invalid content type. Must be multipart/form-data."),
        ("multipart/mixed; boundary=x", "Invalid content type. Must be multipart/form-data."),
        ("multipart/form-data", "no boundary"),
        ("multipart/form-data; boundary=", "no boundary"),
        ('multipart/form-data; boundary=""', "no boundary"),
        ("multipart/form-data; boundary=" + "x" * 300, "boundary is too long"),
    ],
)
def test_content_types_that_are_refused(content_type: str, text_of_it: str) -> None:
    assert text_of_it in refused(b"", content_type)


def test_spellings_of_the_content_type() -> None:
    body = file("a") + END
    for content_type in (
        f'Multipart/Form-Data; Boundary="{BOUNDARY}"',
        f"multipart/form-data;charset=utf-8 ;boundary={BOUNDARY}",
    ):
        assert read(body, content_type)[0] == {"a": b"x"}


def test_everything_but_the_content_of_files_is_bounded() -> None:
    assert "more than 64 fields" in refused(b"".join(text(f"f{n}", "x") for n in range(65)) + file("a") + END)
    assert "more than 256 files" in refused(b"".join(file(f"f{n}") for n in range(257)) + END)
    assert "longer than 4096" in refused(text("kind", "x" * 4097) + file("a") + END)
    long = part('form-data; name="file"; filename="x"', b"", "X-Long: " + "x" * 9000)
    assert "too many or too long headers" in refused(long + END)
    many = part('form-data; name="file"; filename="x"', b"", *[f"X-{n}: y" for n in range(20)])
    assert "too many or too long headers" in refused(many + END)
    nameless = f"--{BOUNDARY}\r\n".encode() + b"x" * 9000
    assert "too many or too long headers" in refused(nameless)
    read(file("a") + END + b"x" * 60_000)
    form = Form(TYPE)
    form.feed(file("a") + END)
    form.feed(b"x" * 65_536)
    with pytest.raises(FormError, match="too much after the last part"):
        form.feed(b"x")


def test_as_many_fields_and_files_as_allowed() -> None:
    files, fields = read(
        b"".join(text(f"f{n}", "x") for n in range(forms.MAX_FIELDS))
        + b"".join(file(f"f{n}", field="files") for n in range(MAX_FILES))
        + END
    )
    assert (len(files), len(fields)) == (256, 64)


def test_a_name_that_a_session_takes_fits_into_the_headers() -> None:
    name = "€" * 256
    quoted = "".join(f"%{byte:02X}" for byte in name.encode())
    body = part(f"form-data; name=file; filename=\"{name}\"; filename*=UTF-8''{quoted}", b"x") + END
    assert read(body)[0] == {name: b"x"}


@settings(max_examples=500)
@given(
    st.lists(
        st.sampled_from(
            [
                f"--{BOUNDARY}".encode(),
                b"--",
                b"\r\n",
                b"\r",
                b"\n",
                b"\r\n\r\n",
                b'Content-Disposition: form-data; name="file"; filename="a"',
                b'Content-Disposition: form-data; name="x"',
                b"Content-Disposition:",
                b"; filename*=UTF-8''%",
                b'"',
                b"\\",
                b";",
                b" ",
                b"content",
            ]
        )
        | st.binary(max_size=5),
        max_size=30,
    ).map(b"".join),
    st.lists(st.integers(0, 600), max_size=5),
)
def test_any_bytes_are_a_form_or_refused(body: bytes, cuts: list[int]) -> None:
    outcomes = []
    for places in ([], cuts, list(range(len(body)))):
        try:
            outcomes.append(read(body, cuts=places))
        except FormError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1] == outcomes[2]  # how it is cut does not matter


@given(st.text())
def test_any_content_type_is_a_form_or_refused(content_type: str) -> None:
    with suppress(FormError):
        Form(content_type.encode("utf-8", "replace").decode("latin-1"))
