"""The rules of the code base that no linter knows: who may import whom, and how long files get."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("crds", "operator", "api", "sidecar", "runner")
PACKAGES = {f"kubecoderun_{part}": ROOT / part / f"kubecoderun_{part}" for part in PARTS}

#: What each package may import of ours, besides itself (docs/architecture.md, "Parts").
ALLOWED = {
    "kubecoderun_crds": set[str](),
    "kubecoderun_operator": {"kubecoderun_crds", "kubecoderun_sidecar.protocol"},
    "kubecoderun_api": {"kubecoderun_crds"},
    "kubecoderun_sidecar": set[str](),
    "kubecoderun_runner": set[str](),
}


def imported_modules(path: Path) -> set[str]:
    """Full names of the modules a file imports, wherever in the file it does so."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("part", PARTS)
def test_top_folders_are_not_packages(part: str) -> None:
    """operator/__init__.py would shadow the standard library's `operator` and break even `python -m venv`."""
    assert not (ROOT / part / "__init__.py").exists()


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_they_may(package: str) -> None:
    for path in PACKAGES[package].rglob("*.py"):
        ours = {name for name in imported_modules(path) if name.startswith("kubecoderun_")}
        foreign = {name for name in ours if name.split(".")[0] != package}
        allowed = ALLOWED[package]
        bad = {
            name
            for name in foreign
            if not any(name == a or name.startswith(f"{a}.") or a.startswith(f"{name}.") for a in allowed)
        }
        assert not bad, f"{path.relative_to(ROOT)} imports {sorted(bad)}"


def test_runner_uses_the_standard_library_only() -> None:
    for path in (ROOT / "runner").rglob("*.py"):
        roots = {name.split(".")[0] for name in imported_modules(path)}
        foreign = roots - set(sys.stdlib_module_names) - {"kubecoderun_runner", "sitecustomize"}
        assert not foreign, f"{path.relative_to(ROOT)} imports {sorted(foreign)}"


@pytest.mark.parametrize("package", ["kubecoderun_sidecar"])
def test_sidecar_stays_small(package: str) -> None:
    """The sidecar runs once per warm pod: no framework, no pydantic in it."""
    for path in PACKAGES[package].rglob("*.py"):
        roots = {name.split(".")[0] for name in imported_modules(path)}
        assert not roots & {"fastapi", "pydantic", "aiohttp", "httpx", "kubernetes", "minio"}, path


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_stay_readable(package: str) -> None:
    for path in PACKAGES[package].rglob("*.py"):
        assert path.stem not in {"utils", "helpers", "manager", "misc", "common"}, path
        lines = len(path.read_text().splitlines())
        assert lines <= 450, f"{path.relative_to(ROOT)} has {lines} lines: split it"
