"""The models read what the API server stores, with the same defaults, and refuse what it refuses."""

import re
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from kubecoderun_crds.fields import LANGUAGES, Condition, EnvVar, Model
from kubecoderun_crds.pool import MAX_TIMEOUT_SECONDS, PoolSpec, PoolStatus
from kubecoderun_crds.reasons import Phase, Reason
from kubecoderun_crds.result import Result
from kubecoderun_crds.scheduling import Affinity
from kubecoderun_crds.schema import structural
from kubecoderun_crds.session import INLINE_CODE_BYTES, Request, SessionSpec, SessionStatus, fits_inline

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
POOL: Json = {"runtime": {"image": "python:1"}}
INPUT: Json = {"path": "data.csv", "session": "other", "id": "a" * 21}
HELD: Json = {
    "request": {
        "mode": "Files",
        "files": [{"id": "a" * 21, "path": "data.csv", "bytes": 3, "contentType": "text/csv"}],
    }
}
SESSION: Json = {"request": {"poolRef": {"name": "python"}, "language": "py", "code": "print(1)"}}


def with_defaults(value: Any, schema: Json) -> Any:
    """What the API server makes of a value: defaults of missing fields, from the outside in."""
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            if name not in value and "default" in child:
                value[name] = deepcopy(child["default"])
        known = schema.get("properties")
        return {
            name: with_defaults(inner, known[name] if known else schema["additionalProperties"])
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [with_defaults(inner, schema["items"]) for inner in value]
    return value


def without_empty(value: Any) -> Any:
    """A value without empty lists, maps and texts, which say the same as a missing field."""
    if isinstance(value, dict):
        inner = {name: without_empty(child) for name, child in value.items()}
        return {name: child for name, child in inner.items() if child not in ([], {}, "")}
    return [without_empty(child) for child in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("model", "raw"),
    [
        (PoolSpec, POOL),
        (PoolSpec, {**POOL, "onEmpty": {"policy": "Reject"}, "limits": {"maxOutputBytes": 2048}}),
        (
            PoolSpec,
            {
                "runtime": {
                    "image": "x",
                    "resources": {"limits": {"cpu": 2}},
                    "env": [{"name": "A"}],
                    "scratch": {"size": "1Gi"},
                },
                "pod": {
                    "tolerations": [{"key": "gpu"}],
                    "nodeSelector": {"disk": "ssd"},
                    "affinity": {
                        "podAntiAffinity": {
                            "preferredDuringSchedulingIgnoredDuringExecution": [
                                {"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname"}}
                            ]
                        }
                    },
                },
            },
        ),
        (SessionSpec, SESSION),
        (SessionSpec, {**SESSION, "cancel": True, "expiresAt": "2027-01-01T00:00:00Z"}),
        (SessionSpec, {**SESSION, "removedFiles": ["a" * 21]}),
        (SessionSpec, {"request": {**SESSION["request"], "inputs": [INPUT, {**INPUT, "readOnly": True}]}}),
        (SessionSpec, HELD),
        (PoolSpec, {**POOL, "limits": {"maxFiles": 0}, "sessionDefaults": {"filesTtlSeconds": 3600}}),
    ],
)
def test_models_have_the_defaults_of_the_schema(model: type[Model], raw: Json) -> None:
    stored = with_defaults(deepcopy(raw), structural(model))
    read = model.model_validate(raw)
    assert read == model.model_validate(stored)
    mine = without_empty(read.as_dict())
    if "resources" in mine.get("runtime", {}):
        cpu = stored["runtime"]["resources"]["limits"]["cpu"]
        stored["runtime"]["resources"]["limits"]["cpu"] = str(cpu)
    assert mine == without_empty(stored)


def test_defaults_are_the_documented_ones() -> None:
    pool = PoolSpec.model_validate(POOL)
    assert (pool.replicas, pool.max_pods, pool.network) == (2, 50, "None")
    assert (pool.runtime.languages, pool.runtime.image_pull_policy) == (["py"], "IfNotPresent")
    assert pool.runtime.preload == ["numpy", "pandas", "matplotlib.pyplot"]
    assert (pool.runtime.scratch.medium, pool.runtime.scratch.size) == ("Memory", "256Mi")
    assert (pool.update_strategy.type, pool.update_strategy.max_unavailable) == ("Rolling", 1)
    assert (pool.on_empty.policy, pool.on_empty.wait_seconds) == ("Wait", 60)
    assert pool.session_defaults.timeout_seconds == 30
    assert pool.session_defaults.ttl_seconds_after_finished == 600
    assert pool.session_defaults.files_ttl_seconds == 86_400
    assert (pool.limits.max_timeout_seconds, pool.limits.max_output_bytes) == (300, 65536)
    assert (pool.limits.max_files, pool.limits.max_file_bytes) == (64, 150 << 20)
    assert pool.limits.max_total_file_bytes == 512 << 20
    session = SessionSpec.model_validate(SESSION)
    assert (session.cancel, session.expires_at, session.request.stdin, session.request.args) == (
        False,
        None,
        "",
        [],
    )


def test_examples_for_users_are_valid() -> None:
    document = (ROOT / "docs" / "resources.md").read_text(encoding="utf-8")
    texts = re.findall(r"```yaml\n(.*?)```", document, re.S)
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "manifests" / "samples").glob("*.yaml")]
    models: dict[str, type[Model]] = {"ExecutionPool": PoolSpec, "ExecutionSession": SessionSpec}
    found = [thing for text in texts for thing in yaml.safe_load_all(text) if thing["kind"] in models]
    assert {thing["kind"] for thing in found} == set(models)
    for thing in found:
        stored = with_defaults(deepcopy(thing["spec"]), structural(models[thing["kind"]]))
        assert models[thing["kind"]].model_validate(stored) == models[thing["kind"]].model_validate(
            thing["spec"]
        )


def test_fields_of_a_newer_version_are_overlooked() -> None:
    assert PoolSpec.model_validate({**POOL, "later": 1}) == PoolSpec.model_validate(POOL)


@pytest.mark.parametrize("quantity", ["1", "1.5", ".5", "500m", "256Mi", "1Gi", "1e3", "2E", 2])
def test_quantities(quantity: object) -> None:
    raw = {"runtime": {"image": "x", "resources": {"limits": {"cpu": quantity}}}}
    assert PoolSpec.model_validate(raw).runtime.resources.limits.cpu == str(quantity)


@pytest.mark.parametrize("quantity", ["", "-1", "1 Gi", "1gi", "Mi", "1Mi\n", True, 1.5, None, "1" * 25])
def test_not_quantities(quantity: object) -> None:
    raw = {"runtime": {"image": "x", "resources": {"limits": {"cpu": quantity}}}}
    with pytest.raises(ValidationError):
        PoolSpec.model_validate(raw)


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": -1},
        {"replicas": 1001},
        {"maxPods": 0},
        {"startsPerMinute": 0},
        {"runtime": {}},
        {"runtime": {"image": "a b"}},
        {"runtime": {"image": "x", "languages": []}},
        {"runtime": {"image": "x", "languages": ["cobol"]}},
        {"runtime": {"image": "x", "preload": ["os; evil"]}},
        {"network": "Some"},
        {"network": "Restricted", "egress": [{"to": []}]},
        {"network": "Restricted", "egress": [{"to": [{"ipBlock": {"cidr": "everywhere"}}]}]},
        {"network": "Restricted", "egress": [{"to": [{"podSelector": {}}], "ports": [{"port": 0}]}]},
        {"onEmpty": {"policy": "ColdStart"}},
        {"onEmpty": {"waitSeconds": 601}},
        {"limits": {"maxTimeoutSeconds": MAX_TIMEOUT_SECONDS + 1}},
        {"limits": {"maxOutputBytes": 1023}},
        {"limits": {"maxFiles": 257}},
        {"limits": {"maxFileBytes": 0}},
        {"limits": {"maxTotalFileBytes": 2**40 + 1}},
        {"limits": {"maxPrintedBytes": 0}},
        {"limits": {"maxProcesses": 15}},
        {"limits": {"maxOpenFiles": 1_048_577}},
        {"sessionDefaults": {"filesTtlSeconds": 9}},
    ],
)
def test_pools_out_of_range(change: Json) -> None:
    with pytest.raises(ValidationError):
        PoolSpec.model_validate({**POOL, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"language": "python"},
        {"poolRef": {"name": "a.b"}},
        {"poolRef": {"name": "p" * 41}},
        {"code": "\x1b"},
        {"args": ["\0"]},
        {"args": ["x"] * 65},
        {"env": [{"name": "1"}]},
        {"timeoutSeconds": 0},
        {"tenant": "a\nb"},
        {"codeRef": {"bytes": 1, "sha256": "A" * 64}},
        {"codeRef": {"bytes": 52_428_801, "sha256": "a" * 64}},
        {"mode": "Container"},
        {"workspaceRef": {"name": "a.b"}},
        {"workspace": {"idleTimeoutSeconds": 4}},
        {"workspace": {"maxLifetimeSeconds": 604_801}},
        {"inputs": [{**INPUT, "path": "../data.csv"}]},
        {"inputs": [{**INPUT, "session": "a.b"}]},
        {"inputs": [{**INPUT, "id": "code"}]},
        {"inputs": [INPUT] * 257},
        {"files": []},
        {"files": [{"id": "a" * 21, "path": "a", "bytes": 2**40 + 1}]},
    ],
)
def test_requests_out_of_range(change: Json) -> None:
    with pytest.raises(ValidationError):
        Request.model_validate({**SESSION["request"], **change})


def test_arguments_and_environment_may_have_lines() -> None:
    """Models send JSON and small programs as arguments."""
    text = '{\n\t"a": 1\r\n}'
    read = Request.model_validate(
        {**SESSION["request"], "args": [text], "env": [{"name": "A", "value": text}]}
    )
    assert read.args == [text]
    assert read.env[0].value == text


def test_all_languages_of_the_clients() -> None:
    assert len(LANGUAGES) == 13
    for language in LANGUAGES:
        Request.model_validate({**SESSION["request"], "language": language})


@pytest.mark.parametrize(
    ("code", "inline"),
    [
        ("", True),
        ("print('ä')\r\n\t", True),
        ("x" * INLINE_CODE_BYTES, True),
        ("x" * (INLINE_CODE_BYTES + 1), False),
        ("ä" * (INLINE_CODE_BYTES // 2), True),
        ("ä" * (INLINE_CODE_BYTES // 2 + 1), False),
        ("\x0c", False),
        ("\x85", False),
        ("\ud800", False),
    ],
)
def test_which_code_stands_in_the_request(code: str, inline: bool) -> None:
    assert fits_inline(code) is inline


def test_status_as_it_is_written() -> None:
    at = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
    status = SessionStatus.model_validate(
        {
            "phase": Phase.SUCCEEDED,
            "reason": Reason.SUCCEEDED,
            "timings": {"completed": at},
            "result": Result(exit_code=0, stdout="1\n", stdout_bytes=2, stdout_truncated=False, stored=False),
            "conditions": [
                {"type": "Completed", "status": "True", "reason": "Succeeded", "lastTransitionTime": at}
            ],
        }
    )
    written = status.as_dict()
    assert written["phase"] == "Succeeded"
    assert written["timings"] == {"completed": "2026-11-23T12:00:00.123456Z"}
    assert written["result"] == {
        "exitCode": 0,
        "stdout": "1\n",
        "stdoutBytes": 2,
        "stdoutTruncated": False,
        "stored": False,
    }
    assert SessionStatus.model_validate(written) == status


def test_files_in_a_status_as_they_are_written() -> None:
    written = {
        "phase": "Succeeded",
        "files": [
            {
                "id": "a" * 21,
                "path": "out/table.csv",
                "bytes": 5,
                "modifiedFrom": {"session": "other", "id": "b" * 21},
            }
        ],
        "fileCount": 1,
        "skippedFiles": [{"path": "big", "reason": "size"}],
        "skippedFileCount": 1,
        "conditions": [],
    }
    assert SessionStatus.model_validate(written).as_dict() == written


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("text", ["\x1b[2J", "\r", "\x9b", "\u202e", "\u200d", "x" * 16_641])
def test_results_do_not_trick_terminals(stream: str, text: str) -> None:
    with pytest.raises(ValidationError):
        Result.model_validate({stream: text})


def test_largest_output_fits_as_text_and_as_base64() -> None:
    Result.model_validate({"stdout": "x" * 16_640, "stderrBase64": "A" * 22_188})


def test_numbers_a_program_may_claim_are_accepted() -> None:
    """What the untrusted side reports must never make a status unwritable."""
    SessionStatus.model_validate({"usage": {"maxRssBytes": 2**63 - 1, "cpuSeconds": 1e9}})
    assert "maximum" not in structural(SessionStatus)["properties"]["usage"]["properties"]["maxRssBytes"]


def test_other_models() -> None:
    assert EnvVar.model_validate({"name": "A"}).value == ""
    with pytest.raises(ValidationError):
        Condition.model_validate({"type": "Available", "status": "maybe", "reason": "X"})
    assert PoolStatus.model_validate({}).conditions == []
    assert Affinity.model_validate({}).as_dict() == {}
    with pytest.raises(ValidationError):
        PoolSpec.model_validate(POOL).replicas = 3
