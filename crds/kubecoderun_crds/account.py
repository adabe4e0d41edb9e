"""What a status says of how a session went: in which pod, when, and what it used."""

from typing import Annotated

from pydantic import Field

from kubecoderun_crds.fields import BigCount, Model, ResourceName, Timestamp


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


class Timings(Model):
    """When each step was done. A step that did not happen has no time."""

    queued: Timestamp | None = None
    """The operator saw the session."""
    prepared: Timestamp | None = None
    """The pod had the program and its input."""
    patched: Timestamp | None = None
    """The API server had noted whose pod it is."""
    started: Timestamp | None = None
    """The program started."""
    finished: Timestamp | None = None
    """The program ended."""
    stored: Timestamp | None = None
    """The full result was in the object store."""
    completed: Timestamp | None = None
    """The operator knew the answer; every ended session has it."""


class Usage(Model):
    """What the program used, its child processes included."""

    cpu_seconds: Annotated[float, Field(ge=0)] | None = None
    """Processor time in seconds."""
    max_rss_bytes: BigCount | None = None
    """Largest resident memory of one process, in bytes."""
    wall_seconds: Annotated[float, Field(ge=0)] | None = None
    """Time from start to end in seconds."""
