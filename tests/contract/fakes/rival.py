"""Two operators and one session: what the ended one has written arrives after the other has begun."""

import asyncio
from typing import Any

from contract.fakes.node import Sidecar
from contract.fakes.store import Json
from contract.fakes.system import NAMESPACE, System
from kubecoderun_crds import names


async def overtaken(on: System, code: str, **request: Any) -> tuple[Json, Sidecar]:
    """A session for which the operator has prepared a pod when the status of an ended operator lands that
    names another one. Returns the session, and the sidecar of the pod that is named."""
    first = await on.start()
    on.pool(replicas=3)
    await on.ready(3)
    on.api.held["patch", "executionsessions/status"] = asyncio.Event()
    session = on.session(code, **request)
    uid, name = session["metadata"]["uid"], session["metadata"]["name"]
    await on.until(lambda: on.node.of_session(uid), "prepared")
    (early,) = on.node.of_session(uid)
    await on.kill(first)
    pod = next(found for found in on.pods() if found["metadata"]["uid"] == early.pod_uid)

    def unready(found: Json) -> Json:
        (ready,) = [entry for entry in found["status"]["conditions"] if entry["type"] == "Ready"]
        ready["status"] = "False"
        return found

    on.api.store.change("pods", NAMESPACE, pod["metadata"]["name"], unready)
    await on.start()
    await on.until(lambda: len(on.node.of_session(uid)) == 2, "another pod is prepared")

    def lands(found: Json) -> Json:
        named = {"name": pod["metadata"]["name"], "uid": early.pod_uid}
        found["status"] = {"phase": "Running", "attempts": 1, "epoch": 1, "pod": named}
        return found

    on.api.store.change(names.SESSION_PLURAL, NAMESPACE, name, lands, "status")
    on.api.held.pop(("patch", "executionsessions/status")).set()
    return session, early
