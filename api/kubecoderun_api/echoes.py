"""Inputs that a run has left as they were: clients of newer generations are told of them again. No I/O.

Which inputs to tell of, and what the client said of each, stands on the session, because another front end
may have to answer: after a continuation, for a repeated request, or for a run that was handed in.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kubecoderun_api.references import Input
from kubecoderun_crds import names

Json = dict[str, Any]


def note(inputs: Sequence[Input]) -> str | None:
    """The annotation for a session with these inputs: for each, in their order, what the client said that it
    belongs to, or null if it must not be told again. None if there is nothing to tell."""
    if not any(one.echo for one in inputs):
        return None
    said = [(one.scope.as_answer() if one.scope else {}) if one.echo else None for one in inputs]
    return json.dumps(said, separators=(",", ":"))


def unchanged(session: Mapping[str, Any], status: Mapping[str, Any]) -> list[Json]:
    """The entries of `files` for inputs of a session that have not changed, if its program has ended with
    this status.

    Neither those that it has removed nor those that it has changed, whether or not that was kept; but always
    those that are read-only, for what it does to its copy of them is lost.
    """
    inputs = session["spec"]["request"].get("inputs") or []
    changed = {
        *(entry["path"] for entry in status.get("files") or []),
        *(entry["path"] for entry in status.get("skippedFiles") or []),
        *(status.get("deletedFiles") or []),
    }
    return [
        {
            "id": one["id"],
            "name": one["path"],
            "storage_session_id": one["session"],
            "session_id": one["session"],
            "inherited": True,
            **said,
        }
        for one, said in zip(inputs, _noted(session), strict=False)
        if said is not None and (one.get("readOnly") or one["path"] not in changed)
    ]


def _noted(session: Mapping[str, Any]) -> list[Json | None]:
    text = (session["metadata"].get("annotations") or {}).get(names.ANNOTATION_ECHO)
    if text is None:
        return []
    noted: list[Json | None] = json.loads(text)
    return noted
