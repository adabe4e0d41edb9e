"""Programmatic tool calling: which tools a program may call, the calls it has made, and their results.

A value, that is what a call is made with and what comes back, is one JSON value as ASCII text: other
characters stand in it as escapes. A text up to INLINE_VALUE_CHARACTERS stands in the resource, a longer one
in the object store, under the session's own key that `input_object` or `result_object` names.
"""

import keyword
import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from kubecoderun_crds.fields import Model, rule, rules
from kubecoderun_crds.printable import LINE_PATTERN, PRINTABLE_PATTERN

MAX_TOOLS: Final = 100
MAX_CALLS: Final = 200
"""Most calls of one run."""
MAX_TOOL_NAME_LENGTH: Final = 128
INLINE_VALUE_CHARACTERS: Final = 8192
INLINE_RESULTS_CHARACTERS: Final = 196_608
"""All results that stand in one resource; what would exceed that goes to the object store."""
MAX_INPUT_BYTES: Final = 500_000
MAX_RESULT_BYTES: Final = 5 * 1024 * 1024
MAX_RESULTS_BYTES: Final = 40 * 1024 * 1024
"""All results of one run."""
MAX_ERROR_LENGTH: Final = 4096
"""Characters of the message of a call that failed."""

ToolLanguage = Literal["py", "bash"]
TOOL_LANGUAGES: Final[tuple[ToolLanguage, ...]] = ("py", "bash")
"""Languages in which programs can call tools."""

CALL_ID_PATTERN: Final = r"^call_[0-9]{3,6}$"
_CALL_ID: Final = re.compile(r"call_[0-9]{3,6}")

_BASH_RESERVED: Final = frozenset(
    [
        "if",
        "then",
        "else",
        "elif",
        "fi",
        "case",
        "esac",
        "for",
        "while",
        "until",
        "do",
        "done",
        "in",
        "function",
        "select",
        "time",
        "coproc",
        "declare",
        "typeset",
        "local",
        "readonly",
        "export",
        "unset",
    ]
)
"""As LibreChat's client has them."""


def call_id(number: int) -> str:
    """The id of a run's call with that number, from 1 on."""
    return f"call_{number:03d}"


def is_call_id(text: str) -> bool:
    """Whether text can be the id of a call."""
    return _CALL_ID.fullmatch(text) is not None


def input_object(call: str) -> str:
    """Name of the object that holds what the call with that id was made with."""
    return f"{call}.input"


def result_object(call: str) -> str:
    """Name of the object that holds the result of the call with that id."""
    return f"{call}.result"


def identifier(tool: str, language: str) -> str:
    """The function that stands for a tool in a program; empty if nothing of the name can be used.

    The rules are those of LibreChat's client, which tells its model these names.
    """
    separators = r"[-\s.]" if language == "bash" else r"[-\s]"
    made = re.sub(r"[^a-zA-Z0-9_]", "", re.sub(separators, "_", tool))
    if made[:1].isdigit():
        made = f"_{made}"
    reserved = made in _BASH_RESERVED if language == "bash" else keyword.iskeyword(made)
    return f"{made}_tool" if reserved else made


def clash(tools: Iterable[str], language: str) -> str:
    """Why a program cannot have these tools together; empty if it can."""
    found: dict[str, str] = {}
    for tool in tools:
        function = identifier(tool, language)
        if not function:
            return f"the tool {tool} has a name without any letter, digit or underscore"
        if function in found:
            return f"the tools {found[function]} and {tool} would both be the function {function}"
        found[function] = tool
    return ""


ToolName = Annotated[str, Field(min_length=1, max_length=MAX_TOOL_NAME_LENGTH, pattern=LINE_PATTERN)]
ValueText = Annotated[str, Field(max_length=INLINE_VALUE_CHARACTERS, pattern=r"^[ -~]*$")]


class ValueReference(Model):
    """A value in the object store."""

    bytes_: Annotated[int, Field(alias="bytes", ge=0, le=MAX_RESULT_BYTES)]
    """Size in bytes."""
    sha256: Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the bytes in hexadecimal digits."""


class ToolResult(Model):
    """What came of a call."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("self == oldSelf", "a result must not be changed", "FieldValueForbidden"),
            rule(
                "[has(self.value), has(self.valueRef), has(self.error)].filter(given, given).size() == 1",
                "there must be exactly one of value, valueRef and error",
            ),
        )
    )

    value: ValueText | None = None
    """The result, as JSON in ASCII."""
    value_ref: ValueReference | None = None
    """A longer one, in the object store."""
    error: Annotated[str, Field(max_length=MAX_ERROR_LENGTH, pattern=PRINTABLE_PATTERN)] | None = None
    """Why the tool failed; the program sees it as an error of the call."""


class ToolCall(Model):
    """A call that a program has made."""

    name: ToolName
    """The tool, one of request.tools."""
    input: ValueText | None = None
    """What it is called with, as JSON in ASCII. Left out once the call has its result."""
    input_ref: ValueReference | None = None
    """The same in the object store."""
