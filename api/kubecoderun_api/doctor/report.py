"""Findings as people and programs read them."""

import json
import textwrap
from collections.abc import Sequence
from typing import Final

from kubecoderun_api.doctor.findings import Finding, Level

_MARKS: Final = {Level.OK: "ok", Level.NOTE: "note", Level.WARNING: "WARNING", Level.FAILURE: "FAILURE"}
_WIDTH: Final = 100
_INDENT: Final = " " * 9


def failed(findings: Sequence[Finding]) -> bool:
    """Whether something does not work."""
    return any(finding.level is Level.FAILURE for finding in findings)


def text(findings: Sequence[Finding]) -> str:
    """One paragraph for each, what to change below it, and a sentence at the end."""
    lines = []
    for finding in findings:
        mark = f"{_MARKS[finding.level]:<8} "
        lines += textwrap.wrap(mark + finding.says, _WIDTH, subsequent_indent=_INDENT)
        if finding.do:
            lines += textwrap.wrap(f"{_INDENT}-> {finding.do}", _WIDTH, subsequent_indent=f"{_INDENT}   ")
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    lines += ["", f"{counts[Level.FAILURE]} failures, {counts[Level.WARNING]} warnings, "
              f"{counts[Level.NOTE]} notes, {counts[Level.OK]} ok."]  # fmt: skip
    return "\n".join(lines) + "\n"


def as_json(findings: Sequence[Finding]) -> str:
    """`{"ok", "findings": [{"check", "level", "says", "do"}]}`."""
    document = {
        "ok": not failed(findings),
        "findings": [
            {"check": found.check, "level": found.level.value, "says": found.says, "do": found.do}
            for found in findings
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
