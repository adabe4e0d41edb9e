"""Workspaces: sessions that own a pod for several runs. What pools, sessions and their statuses say of them.

A workspace is a session of mode Workspace. Runs name it in workspaceRef and take turns in its pod, so that
they find the files of earlier runs in /mnt/data. It belongs to one tenant for life.
"""

from typing import Annotated, Final

from pydantic import Field

from kubecoderun_crds import names
from kubecoderun_crds.fields import BigCount, Count, Model, Timestamp

MAX_WORKSPACES: Final = 5000
"""Most workspaces of a pool; as many as it can have pods."""
MAX_LIFE_SECONDS: Final = 7 * 86_400
"""The longest life a pool can give to its workspaces."""

IdleSeconds = Annotated[int, Field(ge=5, le=MAX_LIFE_SECONDS)]
LifeSeconds = Annotated[int, Field(ge=10, le=MAX_LIFE_SECONDS)]


class PoolWorkspaces(Model):
    """What the pool offers to sessions of mode Workspace."""

    max_: Annotated[int, Field(alias="max", ge=0, le=MAX_WORKSPACES)] = 20
    """How many workspaces there can be at once, each with a pod of its own; with 0 the pool offers none."""
    idle_timeout_seconds: IdleSeconds = 900
    """A workspace that names no idle time ends when nobody has used it for so many seconds."""
    max_lifetime_seconds: LifeSeconds = 43_200
    """The longest life of a workspace in seconds, used or not; a run in progress then comes to its end."""


class WorkspaceRequest(Model):
    """How long the workspace stays. More than the pool allows is cut to that."""

    idle_timeout_seconds: IdleSeconds | None = None
    """It ends when no run has waited or been in progress for so many seconds; the pool's without it."""
    max_lifetime_seconds: LifeSeconds | None = None
    """It ends after so many seconds, used or not; the pool's maximum without it."""


class WorkspaceReference(Model):
    """A session of mode Workspace in the same namespace, of the same tenant."""

    name: Annotated[
        str, Field(min_length=1, max_length=names.SESSION_NAME_MAX_LENGTH, pattern=names.DNS_LABEL_PATTERN)
    ]
    """Its name."""


class WorkspaceStatus(Model):
    """How a session of mode Workspace is used."""

    idle_timeout_seconds: IdleSeconds | None = None
    """Its idle time in seconds."""
    ends_at: Timestamp | None = None
    """When its longest life is over."""
    runs: Count | None = None
    """How many programs have been started in it."""
    last_used: Timestamp | None = None
    """When it was used last; written with a delay of seconds, and not while a run goes on."""


class WorkspaceRun(Model):
    """Where in its workspace a run stands."""

    uid: Annotated[str, Field(max_length=64, pattern=r"^[-0-9A-Za-z]*$")]
    """UID of the workspace; one of the same name that was made later has another."""
    number: BigCount
    """Counts the programs started in the workspace; the first one found an empty /mnt/data."""
