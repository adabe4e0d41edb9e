"""The field reference of docs/resources.md: `python -m kubecoderun_crds.reference FILE` renews it in place.

Everything between the two marks is made from the CRDs and the closed lists; the text around it stays.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from kubecoderun_crds.fields import JsonObject
from kubecoderun_crds.reasons import (
    EVENT_MEANINGS,
    NON_TERMINAL_REASONS,
    NORMAL_EVENTS,
    PHASE_MEANINGS,
    POOL_CONDITION_REASONS,
    POOL_REASON_MEANINGS,
    REASON_MEANINGS,
    TERMINAL_PHASES,
    phase_of,
)
from kubecoderun_crds.schema import pool_definition, session_definition

BEGIN: Final = "<!-- generated from kubecoderun_crds: begin -->"
END: Final = "<!-- generated from kubecoderun_crds: end -->"
_AS_IN_PODS: Final = frozenset({"affinity", "tolerations", "topologySpreadConstraints"})
_OWN_TABLES: Final = frozenset({"status.phase", "status.reason"})


def reference() -> str:
    """The generated part as Markdown, marks included."""
    parts = [BEGIN]
    for definition in (pool_definition(), session_definition()):
        schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        kind = definition["spec"]["names"]["kind"]
        for part in ("spec", "status"):
            parts += [f"### {kind}: {part}", _fields(schema["properties"][part], part)]
        parts += [f"### {kind}: rules", "\n".join(f"* {message}" for message in _messages(schema))]
    parts += ["### Phases of a session", _phases()]
    parts += ["### Reasons of a session", _reasons()]
    parts += ["### Reasons of a pool's conditions", _pool_reasons()]
    parts += ["### Events of a pool", _events()]
    return "\n\n".join([*parts, END]) + "\n"


def renewed(document: str) -> str:
    """The document with its generated part made anew. Raises ValueError if it does not have both marks."""
    before, found, rest = document.partition(BEGIN)
    _, found_end, after = rest.partition(END + "\n")
    if not (found and found_end):
        raise ValueError(f"the document needs the lines {BEGIN} and {END}")
    return before + reference() + after


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines: list[tuple[str, ...]] = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _fields(schema: JsonObject, path: str) -> str:
    rows = [
        (f"`{name}`", _type(node) + (", required" if required else ""), _meaning(name, node))
        for name, node, required in _walk(schema, path)
    ]
    return _table(("Field", "Type", "Meaning"), rows)


def _walk(schema: JsonObject, path: str) -> Iterator[tuple[str, JsonObject, bool]]:
    """All fields below a schema as (path, schema, required), parents first."""
    for name, node in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        yield here, node, name in schema.get("required", [])
        if name in _AS_IN_PODS:
            continue
        yield from _walk(node, here)
        if isinstance(node.get("items"), dict):
            yield from _walk(node["items"], f"{here}[]")


def _type(node: JsonObject) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "quantity"
    if node.get("format") == "date-time":
        return "time"
    if node["type"] == "array":
        return f"list of {_type(node['items'])}"
    if "additionalProperties" in node:
        return f"map of {_type(node['additionalProperties'])}"
    return str(node["type"])


def _meaning(path: str, node: JsonObject) -> str:
    values = node.get("enum") or node.get("items", {}).get("enum") or []
    text = str(node.get("description", ""))
    if path in _OWN_TABLES:
        return text.partition(f" {values[0]}: ")[0] + " See the table below."
    if not all(value in text for value in values):
        text += f" One of: {', '.join(values)}."
    return text


def _messages(schema: JsonObject) -> list[str]:
    found = [rule["message"] for rule in schema.get("x-kubernetes-validations", [])]
    for name, node in schema.get("properties", {}).items():
        if name not in _AS_IN_PODS:
            found += _messages(node)
    if isinstance(schema.get("items"), dict):
        found += _messages(schema["items"])
    return list(dict.fromkeys(found))


def _phases() -> str:
    rows = [
        (str(phase), "yes" if phase in TERMINAL_PHASES else "", meaning)
        for phase, meaning in PHASE_MEANINGS.items()
    ]
    return _table(("Phase", "Final", "Meaning"), rows)


def _reasons() -> str:
    rows = [
        (str(reason), "" if reason in NON_TERMINAL_REASONS else str(phase_of(reason)), meaning)
        for reason, meaning in REASON_MEANINGS.items()
    ]
    return _table(("Reason", "Phase", "Meaning"), rows)


def _pool_reasons() -> str:
    rows = [
        (str(condition), status, str(reason), POOL_REASON_MEANINGS[reason])
        for condition, by_status in POOL_CONDITION_REASONS.items()
        for status, reasons in by_status.items()
        for reason in reasons
    ]
    return _table(("Condition", "Status", "Reason", "Meaning"), rows)


def _events() -> str:
    rows = [
        (str(reason), "Normal" if reason in NORMAL_EVENTS else "Warning", meaning)
        for reason, meaning in EVENT_MEANINGS.items()
    ]
    return _table(("Reason", "Type", "Meaning"), rows)


def main(arguments: list[str]) -> int:
    """Renew the one document named; the exit code is 2 for wrong usage."""
    if len(arguments) != 1:
        print("usage: python -m kubecoderun_crds.reference FILE", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
