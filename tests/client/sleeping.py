"""Plays the operator for programs that only sleep."""

import asyncio
import re

from contract.fakes_api.apiserver import FakeApiServer, Json, succeeded


def finish_later(api: FakeApiServer, session: Json) -> None:
    """Let a session succeed after as many seconds as its program says it sleeps. Others are left alone."""
    name = session["metadata"]["name"]
    found = re.search(r"sleep\(([\d.]+)\)", session["spec"]["request"].get("code", ""))
    if found is None:
        return
    asyncio.get_running_loop().call_later(float(found[1]), api.finish, name, succeeded("woke\n"))
