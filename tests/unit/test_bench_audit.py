"""Counting writes out of an audit log."""

import json
from typing import Any

import pytest

from bench.audit import AuditError, per_session, short_account, writes

OPERATOR = "system:serviceaccount:kubecoderun-system:kubecoderun-operator"
API = "system:serviceaccount:kubecoderun-system:kubecoderun-api"


def event(user: str, verb: str, resource: str, **more: Any) -> str:
    reference = {"resource": resource, "namespace": "kubecoderun"}
    if "subresource" in more:
        reference["subresource"] = more.pop("subresource")
    return json.dumps(
        {
            "stage": "ResponseComplete", "verb": verb, "user": {"username": user}, "objectRef": reference,
            "responseStatus": {"code": 200}, **more,
        }
    )  # fmt: skip


def test_only_completed_writes_count() -> None:
    log = [
        event(API, "create", "executionsessions"),
        event(API, "get", "executionsessions"),
        event(API, "create", "executionsessions", stage="RequestReceived"),
        event("system:node:n1", "patch", "pods", subresource="status"),
        "",
    ]
    assert [(w.account, w.verb, w.what) for w in writes(log)] == [
        (API, "create", "executionsessions"),
        ("system:node:n1", "patch", "pods/status"),
    ]


@pytest.mark.parametrize("line", ["{", "[]", '{"stage": "ResponseComplete"}', "null"])
def test_a_broken_log_is_an_error(line: str) -> None:
    with pytest.raises(AuditError):
        writes([line])


def test_requests_without_an_object_are_counted_too() -> None:
    line = json.loads(event(API, "create", "x"))
    del line["objectRef"]
    assert writes([json.dumps(line)])[0].what == "unknown"


def test_figures_for_each_session() -> None:
    log = [
        *[event(API, "create", "executionsessions")] * 4,
        *[event(OPERATOR, "patch", "executionsessions", subresource="status")] * 4,
        event(OPERATOR, "patch", "pods", responseStatus={"code": 409}),
        *[event(OPERATOR, "update", "leases")] * 50,
        *[event("system:node:a", "patch", "pods", subresource="status")] * 2,
        *[event("system:kube-scheduler", "create", "pods", subresource="binding")] * 2,
        event("kubernetes-admin", "delete", "pods"),
    ]
    figures = per_session(writes(log), 4)
    assert figures["own_writes"] == 2.25
    assert figures["own_refused"] == 0.25
    assert figures["all_writes"] == 3.5
    assert figures["by_account"] == {
        "kubecoderun-system:kubecoderun-operator": 1.25, "kubecoderun-system:kubecoderun-api": 1.0,
        "kubelet": 0.5, "kube-scheduler": 0.5, "kubernetes-admin": 0.25,
    }  # fmt: skip
    assert figures["in_detail"]["kubelet patch pods/status"] == 0.5


@pytest.mark.parametrize(
    ("account", "short"),
    [
        ("system:node:kcr-control-plane", "kubelet"),
        ("system:serviceaccount:kube-system:generic-garbage-collector", "generic-garbage-collector"),
        ("system:kube-scheduler", "kube-scheduler"),
        ("kubernetes-admin", "kubernetes-admin"),
    ],
)
def test_accounts_are_shortened(account: str, short: str) -> None:
    assert short_account(account) == short
