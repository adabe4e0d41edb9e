"""Models to CRD manifests: `python -m kubecoderun_crds.schema OUTDIR` writes one file for each kind.

A CRD wants a *structural* schema: no references, every value typed, no null. Pydantic's JSON schema is turned
into that here; bounds, patterns, defaults, rules and descriptions are said once, in the models. The same
models make the same bytes.
"""

import sys
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel

from kubecoderun_crds import names
from kubecoderun_crds.fields import JsonObject
from kubecoderun_crds.pool import POOL_RULES, PoolSpec, PoolStatus
from kubecoderun_crds.session import SESSION_RULES, SessionSpec, SessionStatus

_HEADER: Final = "# Generated from kubecoderun_crds by `make crds`; do not edit.\n"
_DROPPED: Final = frozenset({"title", "$defs", "propertyNames", "const"})
_INT32_MAX: Final = 2**31 - 1


def structural(model: type[BaseModel]) -> JsonObject:
    """The structural schema of a model, with all references written out."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(raw, raw.get("$defs", {}))


def _convert(node: JsonObject, definitions: JsonObject) -> JsonObject:
    node = _without_null(_resolved(node, definitions), definitions)
    made: JsonObject = {}
    for key, value in node.items():
        if key == "properties":
            made[key] = {name: _convert(child, definitions) for name, child in value.items()}
        elif key in {"items", "additionalProperties"} and isinstance(value, dict):
            made[key] = _convert(value, definitions)
        elif key == "description":
            made[key] = " ".join(value.split())
        elif key not in _DROPPED:
            made[key] = value
    if made.get("type") == "object" and "default" in made:
        made["default"] = {}  # the defaults of the fields inside do the rest
    if made.get("type") == "integer":
        made["format"] = "int32" if made.get("maximum", _INT32_MAX + 1) <= _INT32_MAX else "int64"
    if "description" in made:
        made["description"] += _range_and_default(made)
    return made


def _range_and_default(node: JsonObject) -> str:
    """Sentences for `kubectl explain`, which shows neither range nor default of a field."""
    said = ""
    if node.get("maximum", _INT32_MAX) != _INT32_MAX:
        said += f" From {node['minimum']} to {node['maximum']}."
    default = node.get("default", {})
    if isinstance(default, list):
        said += f" Default: {', '.join(default)}."
    elif default not in ({}, ""):
        said += f" Default: {str(default).lower() if isinstance(default, bool) else default}."
    return said


def _resolved(node: JsonObject, definitions: JsonObject) -> JsonObject:
    """The node with its reference, if any, written out; what stands beside the reference wins."""
    if "$ref" not in node:
        return node
    beside = {key: value for key, value in node.items() if key != "$ref"}
    return {**definitions[node["$ref"].removeprefix("#/$defs/")], **beside}


def _without_null(node: JsonObject, definitions: JsonObject) -> JsonObject:
    """An optional value as the value itself: in a resource, a missing field says what None says in Python."""
    choices = node.get("anyOf", [])
    if {"type": "null"} not in choices:
        return node
    (only,) = [choice for choice in choices if choice != {"type": "null"}]
    beside = {key: value for key, value in node.items() if key not in {"anyOf", "default"}}
    return {**_resolved(only, definitions), **beside}


def _root(
    description: str, spec: type[BaseModel], status: type[BaseModel], rules: tuple[JsonObject, ...]
) -> JsonObject:
    return {
        "description": description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(spec),
            "status": structural(status),
        },
        "x-kubernetes-validations": list(rules),
    }


def _column(name: str, path: str, kind: str, description: str, *, wide: bool = False) -> JsonObject:
    made = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return {**made, "priority": 1} if wide else made


def _definition(kind: str, plural: str, singular: str, short_name: str, version: JsonObject) -> JsonObject:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": singular,
                "shortNames": [short_name],
                "categories": [names.CATEGORY],
            },
            "versions": [{"name": names.VERSION, "served": True, "storage": True, **version}],
        },
    }


def _condition(kind: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


def pool_definition() -> JsonObject:
    """The CustomResourceDefinition of ExecutionPool."""
    return _definition(
        names.POOL_KIND,
        names.POOL_PLURAL,
        names.POOL_SINGULAR,
        names.POOL_SHORT_NAME,
        {
            "additionalPrinterColumns": [
                _column("Desired", ".spec.replicas", "integer", "Warm pods to keep ready."),
                _column("Ready", ".status.readyReplicas", "integer", "Warm pods that are ready."),
                _column("Assigned", ".status.assignedReplicas", "integer", "Pods that run a session."),
                _column("Waiting", ".status.waitingSessions", "integer", "Sessions that wait for a pod."),
                _column("Available", _condition("Available", "status"), "string", "Whether a pod is ready."),
                _column("Reason", _condition("Progressing", "reason"), "string", "What the pool is doing."),
                _column("Image", ".spec.runtime.image", "string", "Image of the runtime.", wide=True),
                _column("Revision", ".status.revision", "string", "Hash of the pod template.", wide=True),
                _column("Updated", ".status.updatedReplicas", "integer", "Warm pods of it.", wide=True),
                _column("Age", ".metadata.creationTimestamp", "date", "Time since creation."),
            ],
            "subresources": {
                "status": {},
                "scale": {
                    "specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas",
                    "labelSelectorPath": ".status.selector",
                },
            },
            "schema": {
                "openAPIV3Schema": _root(
                    "ExecutionPool keeps pods of one kind warm and gives one to each session that names it.",
                    PoolSpec,
                    PoolStatus,
                    POOL_RULES,
                )
            },
        },
    )


def session_definition() -> JsonObject:
    """The CustomResourceDefinition of ExecutionSession."""
    return _definition(
        names.SESSION_KIND,
        names.SESSION_PLURAL,
        names.SESSION_SINGULAR,
        names.SESSION_SHORT_NAME,
        {
            "additionalPrinterColumns": [
                _column("Phase", ".status.phase", "string", "Where the session is in its life."),
                _column("Pool", ".spec.request.poolRef.name", "string", "The pool that provides the pod."),
                _column("Start", ".status.startType", "string", "Whether a pod was ready at once."),
                _column("Exit", ".status.result.exitCode", "integer", "Exit code of the program."),
                _column("Reason", ".status.reason", "string", "Why the session is where it is."),
                _column("Files", ".status.fileCount", "integer", "How many files the session has."),
                _column("Seconds", ".status.usage.wallSeconds", "number", "How long the program ran."),
                _column("Pod", ".status.pod.name", "string", "The pod that ran the program.", wide=True),
                _column(
                    "Workspace",
                    ".spec.request.workspaceRef.name",
                    "string",
                    "The workspace that owns the pod.",
                    wide=True,
                ),
                _column("Runs", ".status.workspace.runs", "integer", "Programs run in it.", wide=True),
                _column("Node", ".status.pod.node", "string", "Its node.", wide=True),
                _column("Age", ".metadata.creationTimestamp", "date", "Time since creation."),
            ],
            "selectableFields": [
                {"jsonPath": ".status.phase"},
                {"jsonPath": ".spec.request.poolRef.name"},
            ],
            "subresources": {"status": {}},
            "schema": {
                "openAPIV3Schema": _root(
                    "ExecutionSession runs one program in a pod of a pool, and its status is the answer; "
                    "or it keeps files for other sessions, or a pod for several runs.",
                    SessionSpec,
                    SessionStatus,
                    SESSION_RULES,
                )
            },
        },
    )


class _Dumper(yaml.SafeDumper):
    """Writes every value out: an anchor for an equal part would make the files hard to read and to diff."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def manifests() -> dict[str, str]:
    """File name and text of each CRD manifest."""
    definitions = {names.POOL_PLURAL: pool_definition(), names.SESSION_PLURAL: session_definition()}
    return {
        f"{plural}.yaml": _HEADER
        + yaml.dump(definition, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
        for plural, definition in definitions.items()
    }


def main(arguments: list[str]) -> int:
    """Write the manifests into the one folder named; the exit code is 2 for wrong usage."""
    if len(arguments) != 1:
        print("usage: python -m kubecoderun_crds.schema OUTDIR", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in manifests().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
