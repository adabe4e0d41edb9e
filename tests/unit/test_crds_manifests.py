"""The CRD manifests: made from the models, structural, bounded, and true to themselves."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubecoderun_crds import names, reference, schema

ROOT = Path(__file__).resolve().parents[2]
DEFINITIONS = {names.POOL_PLURAL: schema.pool_definition(), names.SESSION_PLURAL: schema.session_definition()}
Node = dict[str, Any]

each_kind = pytest.mark.parametrize("plural", DEFINITIONS)


def version_of(plural: str) -> Node:
    (version,) = DEFINITIONS[plural]["spec"]["versions"]
    return dict(version)


def root_of(plural: str) -> Node:
    return dict(version_of(plural)["schema"]["openAPIV3Schema"])


def walk(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """All schemas in a schema, itself first."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    if "items" in node:
        yield from walk(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from walk(node["additionalProperties"], f"{path}.*")


def fields(plural: str) -> Iterator[tuple[str, Node]]:
    """All schemas below spec and status."""
    for part in ("spec", "status"):
        yield from walk(root_of(plural)["properties"][part], part)


@each_kind
def test_committed_manifest_is_that_of_the_models(plural: str) -> None:
    """If this fails: `make crds`."""
    assert (ROOT / "crds" / f"{plural}.yaml").read_text(encoding="utf-8") == schema.manifests()[
        f"{plural}.yaml"
    ]


def test_committed_documentation_is_that_of_the_models() -> None:
    """If this fails: `make crds`."""
    document = (ROOT / "docs" / "resources.md").read_text(encoding="utf-8")
    assert reference.renewed(document) == document


def test_generator_is_deterministic_and_writes_both_files(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-m", "kubecoderun_crds.schema", str(tmp_path / seed)],
            check=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(ROOT / "crds"), "PYTHONHASHSEED": seed},
        )
    for plural in DEFINITIONS:
        text = (tmp_path / "1" / f"{plural}.yaml").read_text(encoding="utf-8")
        assert text == (tmp_path / "2" / f"{plural}.yaml").read_text(encoding="utf-8")
        assert yaml.safe_load(text) == DEFINITIONS[plural]
    assert schema.main([]) == 2
    assert reference.main([]) == 2


@each_kind
def test_manifest_is_small(plural: str) -> None:
    assert len(schema.manifests()[f"{plural}.yaml"].encode()) < 200 * 1024


@each_kind
def test_schema_is_structural(plural: str) -> None:
    for path, node in fields(plural):
        assert not set(node) & {
            "$ref",
            "$defs",
            "title",
            "const",
            "allOf",
            "oneOf",
            "not",
            "propertyNames",
        }, path
        assert "x-kubernetes-preserve-unknown-fields" not in node, path
        assert "nullable" not in node, path
        if node.get("x-kubernetes-int-or-string"):
            assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
            continue
        assert "anyOf" not in node, path
        assert node["type"] in {"object", "array", "string", "integer", "number", "boolean"}, path
        if node["type"] == "object":
            assert ("properties" in node) != ("additionalProperties" in node), path


@each_kind
def test_everything_is_bounded(plural: str) -> None:
    for path, node in fields(plural):
        kind = node.get("type", "string")
        if kind == "string":
            assert "maxLength" in node or "enum" in node, path
        elif kind == "array":
            assert "maxItems" in node, path
            assert "x-kubernetes-list-type" in node or ".affinity." in path or "[]" in path, path
        elif "additionalProperties" in node:
            assert "maxProperties" in node, path
        elif kind in {"integer", "number"}:
            assert "minimum" in node, path


@each_kind
def test_every_field_is_explained(plural: str) -> None:
    for path, node in fields(plural):
        if path.endswith(("[]", "*")) and node.get("type") != "object":
            continue
        text = node.get("description", "")
        assert text.endswith("."), path
        assert "  " not in text, path
        assert "\n" not in text, path


@each_kind
def test_defaults_reach_objects_that_leave_their_parents_out(plural: str) -> None:
    """A default deep inside only works if each optional parent has a default as well."""

    def holds_defaults(node: Node) -> bool:
        children = node.get("properties", {}).values()
        return any("default" in child or holds_defaults(child) for child in children)

    for path, node in walk(root_of(plural)["properties"]["spec"], "spec"):
        for name, child in node.get("properties", {}).items():
            optional = name not in node.get("required", [])
            if child.get("type") == "object" and optional and holds_defaults(child):
                assert child.get("default") == {}, f"{path}.{name}"
            if "default" in child and child.get("type") == "object":
                assert child["default"] == {}, f"{path}.{name}"


@each_kind
def test_required_fields_have_no_defaults(plural: str) -> None:
    for path, node in fields(plural):
        for name in node.get("required", []):
            assert "default" not in node["properties"][name], f"{path}.{name}"


@each_kind
def test_rules_help(plural: str) -> None:
    found = 0
    for path, node in walk(root_of(plural)):
        for rule in node.get("x-kubernetes-validations", []):
            found += 1
            assert len(rule["message"]) > 15, path
            assert rule["message"] != rule["rule"], path
            assert "self" in rule["rule"], path
    assert found >= 10


@each_kind
def test_conditions_are_a_map_by_type(plural: str) -> None:
    conditions = root_of(plural)["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert {"type", "status", "reason", "lastTransitionTime"} <= set(conditions["items"]["required"])
    assert {"message", "observedGeneration"} <= set(conditions["items"]["properties"])


# --- paths ----------------------------------------------------------------------------------------

METADATA = {"creationTimestamp": {"type": "string"}, "name": {"type": "string"}}
STEP = re.compile(r"""\.(?P<name>[A-Za-z0-9]+)(?:\[\?\(@\.(?P<key>[A-Za-z]+)=="(?P<value>[^"]*)"\)\])?""")


def resolve(plural: str, path: str) -> Node:
    """The schema a JSONPath of a column, scale path or selectable field leads to. Asserts that it exists."""
    node: Node = {"properties": {**root_of(plural)["properties"], "metadata": {"properties": METADATA}}}
    position = 0
    while position < len(path):
        step = STEP.match(path, position)
        assert step, f"{path} at {position}"
        assert step["name"] in node["properties"], path
        node = node["properties"][step["name"]]
        if step["key"]:
            node = node["items"]
            assert step["key"] in node["properties"], path
        position = step.end()
    return node


@each_kind
def test_columns_exist_and_have_their_types(plural: str) -> None:
    columns = version_of(plural)["additionalPrinterColumns"]
    assert columns[-1]["name"] == "Age"
    for column in columns:
        node = resolve(plural, column["jsonPath"])
        expected = "string" if column["type"] == "date" else column["type"]
        assert node["type"] == expected, column["name"]
        assert column["description"].endswith("."), column["name"]


def test_columns_ask_for_conditions_that_are_written() -> None:
    text = schema.manifests()["executionpools.yaml"]
    asked = set(re.findall(r'@\.type=="([A-Za-z]+)"', text))
    assert asked <= set(names.PoolCondition)


def test_scale_and_selectable_fields_exist() -> None:
    scale = version_of(names.POOL_PLURAL)["subresources"]["scale"]
    assert resolve(names.POOL_PLURAL, scale["specReplicasPath"])["type"] == "integer"
    assert resolve(names.POOL_PLURAL, scale["statusReplicasPath"])["type"] == "integer"
    assert resolve(names.POOL_PLURAL, scale["labelSelectorPath"])["type"] == "string"
    selectable = [field["jsonPath"] for field in version_of(names.SESSION_PLURAL)["selectableFields"]]
    assert selectable == [".status.phase", ".spec.request.poolRef.name"]
    for path in selectable:
        assert resolve(names.SESSION_PLURAL, path)["type"] == "string"


@each_kind
def test_names_of_the_definition(plural: str) -> None:
    spec = DEFINITIONS[plural]["spec"]
    assert DEFINITIONS[plural]["metadata"]["name"] == f"{plural}.kubecoderun.io"
    assert spec["scope"] == "Namespaced"
    assert spec["names"]["categories"] == ["kubecoderun"]
    assert spec["names"]["shortNames"] == [{"executionpools": "epool", "executionsessions": "esess"}[plural]]
    assert "status" in version_of(plural)["subresources"]


def test_both_manifests_are_in_the_kustomization() -> None:
    listed = yaml.safe_load((ROOT / "crds" / "kustomization.yaml").read_text(encoding="utf-8"))
    assert set(listed["resources"]) == set(schema.manifests())


def test_documents_without_marks_are_not_overwritten() -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        reference.renewed("# nothing\n")
