"""NetworkPolicies, enforced: what pods of pools reach, and who reaches them and the store.

Everything that must be out of reach is a listener that others reach in the same test, so that no test passes
for want of one. In the development cluster, whose network ignores policies, they are enforced for as long
as these tests last (e2e.enforcement).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from e2e.deployment import NAMESPACE, POOLS, SESSIONS, SYSTEM_NAMESPACE
from e2e.enforcement import CannotEnforceError, Enforcer
from e2e.frontend import FrontEnd, exec_body
from e2e.kube import MERGE_PATCH, Kube, Object
from e2e.listeners import LISTED, ROLE_LABEL, UNLISTED, WALLED, Ground, listening
from e2e.node import Node, NoNodeError
from e2e.pools import (
    ended,
    fresh_name,
    making_pools,
    session_manifest,
    wait_at_target,
)
from e2e.reaching import PROBE, WHILE_ASKED, Place, Target, argument, reached, reached_from
from e2e.uploading import upload
from e2e.waiting import eventually
from e2e.workloads import leader, pods_of

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("enforced")]

SIDECAR_PORT = 8790
METADATA = "169.254.169.254"
AT_ONCE = 30.0
"""Seconds in which a policy holds, generous for a busy machine: two watches tell of it, and what is blocked
takes a probe three seconds."""
OWN_ACCORD = 8.0
"""Seconds after which a cluster that still lets a walled pod out enforces no policies."""


@dataclass(frozen=True)
class Enforced:
    """What kind of enforcement there is."""

    guards_nodes: bool
    """Whether it also holds for what a pod sends to its own node, which the API leaves to the cluster."""


@pytest.fixture(scope="module")
def ground(kube: Kube, pool: str) -> Iterator[Ground]:
    wait_at_target(kube, pool)
    containers = kube.pods(pool)[0]["spec"]["containers"]
    image = next(container["image"] for container in containers if container["name"] == "sidecar")
    with listening(kube, image) as made:
        yield made


@pytest.fixture(scope="module")
def node(kube: Kube) -> Node | None:
    try:
        return Node(kube.kubectl("config", "current-context").stdout.strip())
    except NoNodeError:
        return None


@pytest.fixture(scope="module")
def enforced(kube: Kube, ground: Ground, node: Node | None) -> Iterator[Enforced]:
    """Policies hold. Skips the tests where that cannot be had; with CI=true they fail instead."""
    targets = {"pod": Target(ground.address(LISTED), 8080), "api server": api_server(kube)}

    def walled() -> set[str]:
        return reached_from(kube, ground.place(WALLED), targets)

    assert walled() == {"pod", "api server"}
    ground.wall(kube)
    try:
        with enforcing(kube, node, lambda: "pod" not in walled()):
            yield Enforced("api server" not in walled())
    except CannotEnforceError as why:
        if os.environ.get("CI") == "true":
            pytest.fail(f"network policies cannot be enforced: {why}")
        pytest.skip(f"network policies are not enforced: {why}")


@contextmanager
def enforcing(kube: Kube, node: Node | None, holds: Callable[[], bool]) -> Iterator[None]:
    """By the cluster as it is, or by a program in its node."""
    try:
        eventually(holds, "the cluster enforces policies", OWN_ACCORD)
    except AssertionError:
        if node is None:
            raise CannotEnforceError("the cluster ignores them, and its node is not here") from None
    else:
        yield
        return
    enforcer = Enforcer(kube, node)
    try:
        enforcer.start()
        eventually(holds, "policies are enforced", 60)
        yield
    finally:
        enforcer.stop()


def service(kube: Kube, namespace: str, name: str) -> Target:
    """A service's own address, and its first port."""
    spec = kube.request("GET", f"/api/v1/namespaces/{namespace}/services/{name}")["spec"]
    return Target(spec["clusterIP"], spec["ports"][0]["port"])


def api_server(kube: Kube) -> Target:
    return service(kube, "default", "kubernetes")


@pytest.fixture(scope="module")
def targets(kube: Kube, ground: Ground, enforced: Enforced) -> dict[str, Target]:
    """All that pods can reach in a cluster without policies, except other pods of pools."""
    listed, unlisted = ground.address(LISTED), ground.address(UNLISTED)
    found = {
        "listed": Target(listed, 8080),
        "listed, other port": Target(listed, 8081),
        "listed, UDP": Target(listed, 8080, "udp"),
        "unlisted": Target(unlisted, 8080),
        "unlisted, DNS": Target(unlisted, 53, "udp"),
        "front end": service(kube, SYSTEM_NAMESPACE, "kubecoderun-api"),
        "operator": service(kube, SYSTEM_NAMESPACE, "kubecoderun-operator"),
        "store": service(kube, SYSTEM_NAMESPACE, "kubecoderun-store"),
        "name": Target("kubecoderun-store.kubecoderun-system.svc", 80, "name"),
    }
    return found | ({"API server": api_server(kube)} if enforced.guards_nodes else {})


ALWAYS = {"store", "name"}
"""What every pod of a pool reaches."""


@pytest.fixture(scope="module")
def metadata(ground: Ground, node: Node | None) -> Iterator[Target]:
    """A listener at the address where clouds serve credentials."""
    if node is None:
        pytest.skip(f"nothing can listen at {METADATA}: the cluster's node is not here")
    via, container = ground.address(UNLISTED), ground.container(UNLISTED)
    node.in_network_of(container, "ip", "address", "add", f"{METADATA}/32", "dev", "lo")
    words = node.inside("ip", "-o", "route", "get", via).split()
    route = [f"{METADATA}/32", "via", via, "dev", words[words.index("dev") + 1], "onlink"]
    node.inside("ip", "route", "replace", *route)
    yield Target(METADATA, 8080)
    node.inside("ip", "route", "delete", *route)


@pytest.fixture(scope="module")
def make_pool(kube: Kube, pool: str, enforced: Enforced) -> Iterator[Callable[..., str]]:
    """Makes pools that last as long as these tests."""
    runtime = {"image": kube.pool(pool)["spec"]["runtime"]["image"], "languages": ["py"]}
    with making_pools(kube, pool, "x-policies") as make:
        yield lambda **spec: make(runtime=runtime, **spec)


def to_listener(ground: Ground, role: str) -> Object:
    """A rule of an egress list: the TCP port 8080 of a pod."""
    peer = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ground.namespace}},
        "podSelector": {"matchLabels": {ROLE_LABEL: role}},
    }
    return {"to": [peer], "ports": [{"port": 8080}]}


def to_addresses(*cidrs: str) -> Object:
    return {"to": [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]}


@pytest.fixture(scope="module")
def narrow(make_pool: Callable[..., str], ground: Ground) -> str:
    """A pool whose programs reach one listener."""
    return make_pool(network="Restricted", egress=[to_listener(ground, LISTED)])


@pytest.fixture(scope="module")
def wide(make_pool: Callable[..., str]) -> str:
    """A pool whose programs reach every address."""
    return make_pool(network="Restricted", egress=[to_addresses("0.0.0.0/0")])


@pytest.fixture
def program_reaches(kube: Kube) -> Iterator[Callable[[str, dict[str, Target]], set[str]]]:
    """What a program in a pool reaches."""
    made: list[str] = []

    def run(pool: str, targets: dict[str, Target]) -> set[str]:
        made.append(fresh_name("x-policies"))
        kube.apply(session_manifest(made[-1], pool, PROBE, args=[argument(targets)]))
        status = ended(kube, made[-1])["status"]
        assert status["reason"] == "Succeeded", status
        return reached(status["result"]["stdout"])

    yield run
    for name in made:
        kube.delete(f"{SESSIONS}/{name}")


def warm_pod(kube: Kube, pool: str) -> Object:
    """A pod of a full, idle pool."""
    wait_at_target(kube, pool)
    return kube.pods(pool)[0]


def sidecar_of(pod: Object) -> Place:
    """It shares the network of the pod's programs, and no system call filter is on it."""
    return Place.of(pod, "sidecar")


def operator(kube: Kube) -> Place:
    """The operator that leads."""
    name = eventually(lambda: leader(kube), "an operator leads")
    pod = kube.request("GET", f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods/{name}")
    return Place.of(pod, pod["spec"]["containers"][0]["name"])


def test_a_pod_without_network_reaches_store_and_names_only(
    kube: Kube, pool: str, ground: Ground, targets: dict[str, Target]
) -> None:
    assert reached_from(kube, sidecar_of(warm_pod(kube, pool)), targets) == ALWAYS
    assert reached_from(kube, ground.place(UNLISTED), targets) == set(targets) - {"store"}


def test_a_program_reaches_what_its_list_names(
    narrow: str,
    wide: str,
    targets: dict[str, Target],
    program_reaches: Callable[[str, dict[str, Target]], set[str]],
) -> None:
    assert program_reaches(narrow, targets) == ALWAYS | {"listed"}
    assert program_reaches(wide, targets) == set(targets)


def test_a_changed_list_holds_at_once_for_pods_that_exist(
    kube: Kube, narrow: str, ground: Ground, targets: dict[str, Target]
) -> None:
    pod = warm_pod(kube, narrow)
    asked = {name: targets[name] for name in ("listed", "unlisted")}

    def changed(role: str) -> None:
        rules = {"spec": {"egress": [to_listener(ground, role)]}}
        kube.request("PATCH", f"{POOLS}/{narrow}", rules, MERGE_PATCH)
        place = sidecar_of(pod)
        eventually(lambda: reached_from(kube, place, asked) == {role}, f"only {role} is reached", AT_ONCE)

    assert reached_from(kube, sidecar_of(pod), asked) == {LISTED}
    changed(UNLISTED)
    changed(LISTED)
    assert kube.pods(narrow)[0]["metadata"]["uid"] == pod["metadata"]["uid"]


def test_link_local_addresses_are_left_out_of_every_range_and_can_be_named(
    kube: Kube,
    wide: str,
    ground: Ground,
    metadata: Target,
    program_reaches: Callable[[str, dict[str, Target]], set[str]],
) -> None:
    targets = {"metadata": metadata, "same pod": Target(ground.address(UNLISTED), metadata.port)}
    assert reached_from(kube, ground.place(LISTED), targets) == set(targets)
    assert program_reaches(wide, targets) == {"same pod"}
    rules = {"spec": {"egress": [to_addresses("0.0.0.0/0", f"{METADATA}/32")]}}
    kube.request("PATCH", f"{POOLS}/{wide}", rules, MERGE_PATCH)
    place = sidecar_of(warm_pod(kube, wide))
    eventually(lambda: reached_from(kube, place, targets) == set(targets), "what is named is reached")
    assert program_reaches(wide, targets) == set(targets)


def test_the_api_server_is_out_of_reach(kube: Kube, pool: str, narrow: str, enforced: Enforced) -> None:
    if not enforced.guards_nodes:
        pytest.skip("this cluster's policies do not hold for what pods send to their own node")
    targets = {"API server": api_server(kube)}
    for name in (pool, narrow):
        assert reached_from(kube, sidecar_of(warm_pod(kube, name)), targets) == set()
    assert reached_from(kube, operator(kube), targets) == set(targets)


def test_only_the_operator_reaches_a_pod_and_only_its_sidecar(
    kube: Kube,
    pool: str,
    wide: str,
    ground: Ground,
    program_reaches: Callable[[str, dict[str, Target]], set[str]],
) -> None:
    pod = warm_pod(kube, pool)
    address = pod["status"]["podIP"]
    targets = {"sidecar": Target(address, SIDECAR_PORT), "other port": Target(address, 8081)}
    where = ["--namespace", NAMESPACE, "exec", "--stdin", pod["metadata"]["name"], "--container", "sidecar"]
    with kube.open_kubectl(*where, "--", "python", "-c", WHILE_ASKED):
        eventually(
            lambda: reached_from(kube, sidecar_of(pod), targets) == set(targets), "both ports are listened at"
        )
        assert reached_from(kube, operator(kube), targets) == {"sidecar"}
        assert reached_from(kube, ground.place(UNLISTED), targets) == set()
        assert program_reaches(wide, targets) == set()


def test_an_unmanaged_pool_is_left_alone(
    kube: Kube, make_pool: Callable[..., str], ground: Ground, targets: dict[str, Target]
) -> None:
    pod = warm_pod(kube, make_pool(network="Unmanaged"))
    assert reached_from(kube, sidecar_of(pod), targets) == set(targets)
    inward = {"sidecar": Target(pod["status"]["podIP"], SIDECAR_PORT)}
    assert reached_from(kube, ground.place(UNLISTED), inward) == set(inward)


def test_the_store_is_for_the_system_and_reaches_nobody(
    kube: Kube, ground: Ground, node: Node | None, targets: dict[str, Target]
) -> None:
    asked = {"store": targets["store"]}
    assert reached_from(kube, ground.place(UNLISTED), asked) == set()
    for deployment in ("kubecoderun-api", "kubecoderun-operator"):
        pod = pods_of(kube, deployment)[0]
        assert reached_from(kube, Place.of(pod, pod["spec"]["containers"][0]["name"]), asked) == set(asked)
    if node is None:
        pytest.skip("the store's image has no program to connect with, and the cluster's node is not here")
    connect = ["timeout", "3", "bash", "-c", f": </dev/tcp/{ground.address(LISTED)}/8080"]
    node.in_network_of(ground.container(UNLISTED), *connect)
    store = pods_of(kube, "kubecoderun-store")[0]["status"]["containerStatuses"][0]["containerID"]
    with pytest.raises(NoNodeError):
        node.in_network_of(store, *connect)


def test_the_system_works_while_policies_are_enforced(front_end: FrontEnd, kube: Kube, pool: str) -> None:
    """From the front end over the operator to the sidecar and back, from all three to the store, and from
    the kubelet to new pods."""
    reference: dict[str, Any] = upload(front_end, "in.txt", b"6")
    code = "n = int(open('in.txt').read()) * 7\nopen('out.txt', 'w').write(str(n))\nprint('x' * 60_000)"
    answer = front_end.exec(code, files=[reference])
    assert (answer.status, answer["stderr"], len(answer["stdout"])) == (200, "", 60_001)
    made = {file["name"]: file["id"] for file in answer["files"]}
    assert front_end.call("GET", f"/v1/download/{answer.session}/{made['out.txt']}").body == b"42"
    slow = exec_body("import time\nprint('begin', flush=True)\ntime.sleep(4)\nprint('the end')")
    handed_in = front_end.call("POST", "/v1/exec", slow, front_end.headers(Prefer="respond-async"))
    assert handed_in.status == 202, handed_in
    told = front_end.call("GET", f"/v1/exec/{handed_in.session}/events").body
    assert [word for word in (b"begin", b"the end") if word not in told] == [], told
    wait_at_target(kube, pool)
