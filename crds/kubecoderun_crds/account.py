"""The pod of a session, as its status names it."""

from typing import Annotated

from pydantic import Field

from kubecoderun_crds.fields import Model, ResourceName


class SessionPod(Model):
    """The pod that ran the program."""

    name: ResourceName
    """Its name."""
    uid: Annotated[str, Field(max_length=64, pattern=r"^[-0-9A-Za-z]*$")]
    """Its UID."""
    ip: Annotated[str, Field(max_length=45, pattern=r"^[0-9a-fA-F.:]*$")] | None = None
    """Its address."""
    node: ResourceName | None = None
    """Its node."""
