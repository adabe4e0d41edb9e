"""ExecutionSession: one run of one program, its request and its answer; or files that are kept for runs; or
a workspace, which owns a pod for several runs.

`SessionSpec.model_validate(raw["spec"])` reads a session with the same defaults that the API server fills in.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from kubecoderun_crds import names
from kubecoderun_crds.account import SessionPod
from kubecoderun_crds.fields import (
    ATOMIC_LIST,
    SET_LIST,
    BigCount,
    Condition,
    Count,
    EnvVar,
    JsonObject,
    Language,
    Message,
    Model,
    PoolName,
    ShortText,
    Timestamp,
    cel_list,
    map_list,
    rule,
    rules,
)
from kubecoderun_crds.files import FileId, FilePath, HeldFile, InputReference, OutputFile, SkippedFile
from kubecoderun_crds.pool import MAX_FILES, MAX_TIMEOUT_SECONDS
from kubecoderun_crds.printable import PLAIN_PATTERN, is_plain
from kubecoderun_crds.reasons import (
    MODE_MEANINGS,
    NON_TERMINAL_REASONS,
    PHASE_MEANINGS,
    REASON_MEANINGS,
    TERMINAL_PHASES,
    Mode,
    Phase,
    Reason,
    StartType,
    phase_of,
)
from kubecoderun_crds.result import Result, Timings, Usage
from kubecoderun_crds.toolcalls import (
    CALL_ID_PATTERN,
    INLINE_RESULTS_CHARACTERS,
    MAX_CALLS,
    MAX_TOOLS,
    TOOL_LANGUAGES,
    ToolCall,
    ToolName,
    ToolResult,
)
from kubecoderun_crds.workspaces import WorkspaceReference, WorkspaceRequest, WorkspaceRun, WorkspaceStatus

INLINE_CODE_BYTES: Final = 16_384
"""Code in UTF-8 up to this size stands in the request; larger code goes to the object store."""
INLINE_STDIN_BYTES: Final = 16_384
CODE_OBJECT_BYTES: Final = 50 * 1024 * 1024
"""The largest code there is."""
MAX_ARGS: Final = 64
MAX_ENV: Final = 64
MAX_ARGS_LENGTH: Final = 32_768
"""Characters of all arguments together; as many for all values of env."""
MAX_SKIPPED_FILES: Final = 20
"""Most files that a status names although they were not kept."""

_TERMINAL: Final = cel_list(sorted(TERMINAL_PHASES))
_ONLY_OF_RUNS: Final = (
    "workspaceRef",
    "language",
    "code",
    "codeRef",
    "inputs",
    "args",
    "stdin",
    "env",
    "timeoutSeconds",
    "tools",
)


class PoolReference(Model):
    """A pool in the session's namespace."""

    name: PoolName
    """Name of the ExecutionPool."""


class CodeReference(Model):
    """Code in the object store, under the session's own key `code`."""

    bytes_: Annotated[int, Field(alias="bytes", ge=0, le=CODE_OBJECT_BYTES)]
    """Size in bytes."""
    sha256: Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the bytes in hexadecimal digits."""


def _any_of(fields: Sequence[str]) -> str:
    return " || ".join(f"has(self.{name})" for name in fields)


def _one_of(fields: Sequence[str]) -> str:
    return f"{', '.join(fields[:-1])} or {fields[-1]}"


def _bytes_at_most(field: str, limit: int) -> str:
    return f"!has(self.{field}) || size(bytes(self.{field})) <= {limit}"


def _meanings(of: Mapping[Mode, str] | Mapping[Phase, str] | Mapping[Reason, str]) -> str:
    return " ".join(f"{value}: {meaning}." for value, meaning in of.items())


class Request(Model):
    """What to run, or which files to keep."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self == oldSelf",
                "the request must not be changed: create another session",
                "FieldValueForbidden",
            ),
            rule(
                "self.mode != 'Run' || (has(self.poolRef) || has(self.workspaceRef)) && has(self.language)",
                "a session of mode Run must have language, and poolRef or workspaceRef",
                "FieldValueRequired",
            ),
            rule(
                "self.mode != 'Run' || has(self.code) != has(self.codeRef)",
                "there must be exactly one of code and codeRef",
            ),
            rule(
                f"self.mode != 'Files' || !(has(self.poolRef) || {_any_of(_ONLY_OF_RUNS)})",
                f"a session of mode Files runs nothing: it must not have poolRef, {_one_of(_ONLY_OF_RUNS)}",
                "FieldValueForbidden",
            ),
            rule(
                f"self.mode != 'Workspace' || has(self.poolRef) && !({_any_of(_ONLY_OF_RUNS)})",
                "a session of mode Workspace must have poolRef, and runs nothing itself: it must not have "
                f"{_one_of(_ONLY_OF_RUNS)}",
            ),
            rule(
                "self.mode == 'Workspace' || !has(self.workspace)",
                "only a session of mode Workspace may have workspace; a run names one in workspaceRef",
                "FieldValueForbidden",
            ),
            rule(
                "(self.mode == 'Files') == has(self.files)",
                "there must be files in mode Files, and in no other mode",
            ),
            rule(
                _bytes_at_most("code", INLINE_CODE_BYTES),
                f"code must not have more than {INLINE_CODE_BYTES} bytes in UTF-8: use codeRef",
            ),
            rule(
                _bytes_at_most("stdin", INLINE_STDIN_BYTES),
                f"stdin must not have more than {INLINE_STDIN_BYTES} bytes in UTF-8",
            ),
            rule(
                f"!has(self.args) || self.args.map(arg, size(arg)).sum() <= {MAX_ARGS_LENGTH}",
                f"args must not have more than {MAX_ARGS_LENGTH} characters together",
            ),
            rule(
                f"!has(self.env) || self.env.map(entry, size(entry.value)).sum() <= {MAX_ARGS_LENGTH}",
                f"values of env must not have more than {MAX_ARGS_LENGTH} characters together",
            ),
            rule(
                f"!has(self.tools) || !has(self.language) || self.language in {cel_list(TOOL_LANGUAGES)}",
                f"only programs in {' and '.join(TOOL_LANGUAGES)} can have tools",
            ),
        )
    )

    mode: Mode = Field(default=Mode.RUN, description=f"What the session is for. {_meanings(MODE_MEANINGS)}")
    pool_ref: PoolReference | None = None
    """The pool that provides the pod."""
    workspace_ref: WorkspaceReference | None = None
    """The workspace in whose pod the program runs, when those before it have ended; poolRef may be left out
    then."""
    workspace: WorkspaceRequest | None = None
    """How long a session of mode Workspace stays."""
    language: Language | None = None
    """Language of the code; the pool must offer it."""
    code: Annotated[str, Field(max_length=INLINE_CODE_BYTES, pattern=PLAIN_PATTERN)] | None = None
    """The program, up to 16 KiB in UTF-8; of control characters only tab, line feed and carriage return."""
    code_ref: CodeReference | None = None
    """Any other program, in the object store."""
    args: Annotated[list[ShortText], Field(max_length=MAX_ARGS, json_schema_extra=ATOMIC_LIST)] = Field(
        default_factory=list
    )
    """Arguments of the program, up to 32768 characters together; of control characters only tab, line feed
    and carriage return."""
    stdin: Annotated[str, Field(max_length=INLINE_STDIN_BYTES, pattern=PLAIN_PATTERN)] = Field(
        default_factory=str
    )
    """What the program reads from its standard input: as code, up to 16 KiB."""
    env: Annotated[list[EnvVar], Field(max_length=MAX_ENV, json_schema_extra=map_list("name"))] = Field(
        default_factory=list
    )
    """Environment of the program, beside and before that of the pool."""
    timeout_seconds: Annotated[int, Field(ge=1, le=MAX_TIMEOUT_SECONDS)] | None = None
    """Time limit in seconds; the pool's default without it, and never more than the pool allows: more is cut
    to that, and the message of the status says so."""
    inputs: Annotated[
        list[InputReference], Field(max_length=MAX_FILES, json_schema_extra=map_list("path"))
    ] = Field(default_factory=list)
    """Files of other sessions that stand in the working directory /mnt/data before the program starts."""
    tools: (
        Annotated[list[ToolName], Field(min_length=1, max_length=MAX_TOOLS, json_schema_extra=SET_LIST)]
        | None
    ) = None
    """Tools that the program can call. Each call stands in status.toolCalls, and waits until its result
    stands in spec.toolResults."""
    files: (
        Annotated[list[HeldFile], Field(min_length=1, max_length=MAX_FILES, json_schema_extra=map_list("id"))]
        | None
    ) = None
    """The files of a session of mode Files; their bytes are in the object store already."""
    tenant: (
        Annotated[
            str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._:@]*[A-Za-z0-9])?$")
        ]
        | None
    ) = None
    """On whose behalf the program runs or the files are kept. A program gets no files of another tenant."""


class SessionSpec(Model):
    """Desired state: the request, and how long anybody is interested in it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.cancel || !oldSelf.cancel",
                "a cancelled session must stay cancelled",
                "FieldValueForbidden",
            ),
            rule(
                "!has(oldSelf.expiresAt) || has(self.expiresAt) && self.expiresAt >= oldSelf.expiresAt",
                "expiresAt must only be moved to a later time",
                "FieldValueForbidden",
            ),
            rule(
                "!has(oldSelf.removedFiles) || has(self.removedFiles) "
                "&& oldSelf.removedFiles.all(id, id in self.removedFiles)",
                "removedFiles must only grow: a removed file does not come back",
                "FieldValueForbidden",
            ),
            rule(
                "!has(self.toolResults) || has(self.request.tools)",
                "only a session with request.tools can have toolResults",
            ),
            rule(
                "!has(oldSelf.toolResults) || has(self.toolResults) "
                "&& oldSelf.toolResults.all(id, id in self.toolResults)",
                "toolResults must only grow: a result cannot be taken back",
                "FieldValueForbidden",
            ),
            rule(
                f"!has(self.toolResults) || self.toolResults.all(id, id.matches('{CALL_ID_PATTERN}'))",
                "toolResults must have ids of calls, as in status.toolCalls",
            ),
            rule(
                "!has(self.toolResults) || self.toolResults.map(id, "
                "size(self.toolResults[id].?value.orValue(''))).sum() "
                f"<= {INLINE_RESULTS_CHARACTERS}",
                f"values of toolResults must not have more than {INLINE_RESULTS_CHARACTERS} characters "
                "together: use valueRef",
            ),
        )
    )

    request: Request
    """What to run; cannot be changed."""
    cancel: bool = False
    """true ends the session; cannot be taken back."""
    expires_at: Timestamp | None = None
    """When the session is deleted, finished or not; can only be moved to a later time. Without it, a finished
    session is deleted after the time that its pool says."""
    removed_files: Annotated[list[FileId], Field(max_length=MAX_FILES, json_schema_extra=SET_LIST)] = Field(
        default_factory=list
    )
    """Ids of files of this session that do not exist any more for anybody; can only grow."""
    tool_results: Annotated[dict[str, ToolResult], Field(max_length=MAX_CALLS)] | None = None
    """What came of the program's tool calls, by the id of the call; can only grow, and each is final."""


def _reasons_go_with_phases() -> str:
    ends = [reason for reason in Reason if reason not in NON_TERMINAL_REASONS]
    return " || ".join(
        f"self.phase == '{phase}' && self.reason in {cel_list([r for r in ends if phase_of(r) is phase])}"
        for phase in sorted(TERMINAL_PHASES)
    )


class SessionStatus(Model):
    """Observed state, written by the operator."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                f"!has(self.phase) || !(self.phase in {_TERMINAL}) "
                "|| has(self.reason) && has(self.timings) && has(self.timings.completed)",
                "an ended session must have a reason and timings.completed",
            ),
            rule(
                f"!has(self.phase) || !(self.phase in {_TERMINAL}) || !has(self.reason) || "
                f"({_reasons_go_with_phases()})",
                "the reason must be one that goes with the phase",
            ),
            rule(
                f"!has(oldSelf.phase) || !(oldSelf.phase in {_TERMINAL}) || "
                "has(self.reason) && self.reason == oldSelf.reason "
                "&& has(self.result) == has(oldSelf.result) "
                "&& (!has(self.result) || self.result == oldSelf.result) "
                "&& has(self.files) == has(oldSelf.files) "
                "&& (!has(self.files) || self.files == oldSelf.files)",
                "an ended session must keep its reason, result and files",
                "FieldValueForbidden",
            ),
        )
    )

    observed_generation: BigCount | None = None
    """The metadata.generation this status is about; never falls."""
    phase: Phase | None = Field(
        default=None,
        description=f"Where the session is in its life; absent means Pending. {_meanings(PHASE_MEANINGS)}",
    )
    reason: Reason | None = Field(
        default=None, description=f"Why, as one word for programs. {_meanings(REASON_MEANINGS)}"
    )
    message: Message | None = None
    """Why, as a sentence for people."""
    start_type: StartType | None = None
    """Warm: a ready pod was there at once. Waited: there was none at first."""
    attempts: Count | None = None
    """How many pods have been chosen for the session; never falls."""
    epoch: BigCount | None = None
    """Counts changes of the leading operator; a status of an earlier leader is refused."""
    pod: SessionPod | None = None
    """The pod that ran the program, or that the workspace owns."""
    timings: Timings | None = None
    """When each step was done."""
    result: Result | None = None
    """What the program left; each stream is text if it is safe to print, otherwise base64."""
    usage: Usage | None = None
    """What the program used."""
    files: (
        Annotated[list[OutputFile], Field(max_length=MAX_FILES, json_schema_extra=map_list("id"))] | None
    ) = None
    """Files that the program made or changed, and that are kept as long as the session."""
    file_count: Count | None = None
    """How many files the session has."""
    skipped_files: (
        Annotated[list[SkippedFile], Field(max_length=MAX_SKIPPED_FILES, json_schema_extra=ATOMIC_LIST)]
        | None
    ) = None
    """The first of the new or changed files that were not kept."""
    skipped_file_count: BigCount | None = None
    """How many new or changed files were not kept."""
    deleted_files: (
        Annotated[list[FilePath], Field(max_length=MAX_FILES, json_schema_extra=SET_LIST)] | None
    ) = None
    """Paths of inputs that the program removed, without those that are read-only."""
    workspace: WorkspaceStatus | None = None
    """How a session of mode Workspace is used."""
    workspace_run: WorkspaceRun | None = None
    """Where a run with a workspaceRef stands in its workspace."""
    tool_calls: Annotated[dict[str, ToolCall], Field(max_length=MAX_CALLS)] | None = None
    """Tool calls that the program has made, by id. It waits for those
    that have nothing in spec.toolResults."""
    conditions: Annotated[list[Condition], Field(max_length=4, json_schema_extra=map_list("type"))] = Field(
        default_factory=list
    )
    """Completed: the session has ended; wait for it with kubectl wait."""


def _never_falls(field: str) -> str:
    return f"self.?status.?{field}.orValue(-1) >= oldSelf.?status.?{field}.orValue(-1)"


SESSION_RULES: Final[tuple[JsonObject, ...]] = (
    rule(
        f"size(self.metadata.name) <= {names.SESSION_NAME_MAX_LENGTH}",
        f"the name must not have more than {names.SESSION_NAME_MAX_LENGTH} characters",
    ),
    rule(
        f"self.metadata.name.matches('{names.DNS_LABEL_PATTERN}')",
        "the name must not have dots: it is a label of the pod",
    ),
    rule(
        f"!has(oldSelf.status) || !has(oldSelf.status.phase) || !(oldSelf.status.phase in {_TERMINAL}) "
        "|| has(self.status) && has(self.status.phase) && self.status.phase == oldSelf.status.phase",
        "an ended session must keep its phase",
        "FieldValueForbidden",
    ),
    rule(_never_falls("epoch"), "status.epoch must not fall: the writer is not the leader any more"),
    rule(_never_falls("observedGeneration"), "status.observedGeneration must not fall"),
    rule(_never_falls("attempts"), "status.attempts must not fall"),
    rule(
        "!has(oldSelf.status) || !has(oldSelf.status.pod) || !has(self.status) || !has(self.status.pod) "
        "|| self.status.pod.uid == oldSelf.status.pod.uid "
        "|| self.status.?attempts.orValue(0) > oldSelf.status.?attempts.orValue(0)",
        "status.attempts must rise when the session gets another pod",
    ),
)
"""Rules about the whole object, which also see a status that is removed."""


def fits_inline(code: str) -> bool:
    """Whether code can stand in the request; other code goes to the object store, with a codeRef."""
    # Counting characters first spares encoding a large program only to see that it is large.
    return len(code) <= INLINE_CODE_BYTES and is_plain(code) and len(code.encode()) <= INLINE_CODE_BYTES
