"""The form of an upload, read back with the standard library's parser of MIME messages."""

from __future__ import annotations

from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_sidecar.form import build_form, percent_encoded

VALUE = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=60)


def parts(content_type: str, body: bytes) -> list[Message]:
    message = BytesParser(policy=HTTP).parsebytes(
        b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body
    )
    assert message.is_multipart()
    return list(message.iter_parts())


@given(
    fields=st.dictionaries(st.sampled_from(["policy", "x-amz-signature", 'a"b', "a\r\nb"]), VALUE),
    path=st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    data=st.binary(max_size=200),
)
def test_a_form_holds_its_fields_and_the_file_last(fields: dict[str, str], path: str, data: bytes) -> None:
    form = build_form(fields, "i/n/s/f", path, "b" * 48)
    got = parts(form.content_type, form.before + data + form.after)
    names = [part.get_param("name", header="content-disposition") for part in got]
    escaped = [name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A") for name in fields]
    assert names == [*escaped, "key", "x-amz-meta-path", "file"]
    values = [part.get_payload(decode=True) for part in got]
    assert values[:-1] == [value.encode() for value in [*fields.values(), "i/n/s/f", percent_encoded(path)]]
    assert values[-1] == data
    assert unquote(percent_encoded(path)) == path
    assert percent_encoded(path).isascii()
