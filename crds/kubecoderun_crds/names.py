"""Names that more than one part relies on: the API group, labels, ids, object keys, condition types.

Makers return a new name; `is_...` validators answer for any text; functions that compose names raise
`ValueError` for parts that could escape their place (a slash in an object key, a dot in a pool's name).
"""

import hashlib
import re
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

# --- the API group --------------------------------------------------------------------------------

GROUP: Final = "kubecoderun.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
CATEGORY: Final = "kubecoderun"

POOL_KIND: Final = "ExecutionPool"
POOL_PLURAL: Final = "executionpools"
POOL_SINGULAR: Final = "executionpool"
POOL_SHORT_NAME: Final = "epool"

SESSION_KIND: Final = "ExecutionSession"
SESSION_PLURAL: Final = "executionsessions"
SESSION_SINGULAR: Final = "executionsession"
SESSION_SHORT_NAME: Final = "esess"

OPERATOR_FIELD_MANAGER: Final = "kubecoderun-operator"
API_FIELD_MANAGER: Final = "kubecoderun-api"

# --- labels ---------------------------------------------------------------------------------------

LABEL_PREFIX: Final = f"{GROUP}/"
"""Reserved: neither a pool nor anybody else may put labels or annotations with this prefix on a pod."""

LABEL_POOL: Final = f"{LABEL_PREFIX}pool"
"""On pods: name of the pool that made the pod."""
LABEL_POOL_UID: Final = f"{LABEL_PREFIX}pool-uid"
"""On pods: UID of that pool; a pool of the same name made later does not take over old pods."""
LABEL_REVISION: Final = f"{LABEL_PREFIX}revision"
"""On pods: hash of the pod template, 10 hexadecimal digits."""
LABEL_STATE: Final = f"{LABEL_PREFIX}state"
"""On pods: a `PodState`."""
LABEL_SESSION: Final = f"{LABEL_PREFIX}session"
"""On assigned pods: name of the owning session."""
LABEL_SESSION_UID: Final = f"{LABEL_PREFIX}session-uid"
"""On assigned pods: UID of the owning session."""
LABEL_NETWORK: Final = f"{LABEL_PREFIX}network"
"""On pods: the pool's `network`; network policies leave pods alone that say Unmanaged."""
LABEL_FRONT_END: Final = f"{LABEL_PREFIX}front-end"
"""On sessions: UID of the front-end replica that waits for the answer."""
LABEL_TENANT: Final = f"{LABEL_PREFIX}tenant"
"""On sessions: `label_value` of the tenant on whose behalf the front end made it."""
LABEL_USER: Final = f"{LABEL_PREFIX}user"
"""On sessions: `label_value` of the user, as the client names users; finds everything of one of them."""
LABEL_KIND: Final = f"{LABEL_PREFIX}kind"
"""On sessions of uploads: what the files belong to, if the client says so: user, agent or skill."""
LABEL_RESOURCE: Final = f"{LABEL_PREFIX}resource"
"""On sessions of uploads for an agent or a skill: `label_value` of its id."""
LABEL_VERSION: Final = f"{LABEL_PREFIX}version"
"""On sessions of uploads for a skill: its version."""
ANNOTATION_RESOURCE: Final = LABEL_RESOURCE
"""On sessions of uploads for an agent or a skill: its id, which may have characters that labels refuse."""
LABEL_CALL: Final = f"{LABEL_PREFIX}call"
"""On sessions with tools: hash of the id that a client gave to its latest call, by which it can cancel it."""
ANNOTATION_CONTINUATION: Final = f"{LABEL_PREFIX}continuation"
"""On sessions with tools: hash of the secret that lets a client bring tool results."""
ANNOTATION_ECHO: Final = f"{LABEL_PREFIX}echo"
"""On sessions of runs: which inputs the answer names again if they have not changed (front end only)."""
LABEL_EXPIRES: Final = f"{LABEL_PREFIX}expires"
"""On sessions: the hour (see `expiry_bucket`) in which the session expires; makes sweeping one selector."""


ANNOTATION_FINGERPRINT: Final = f"{LABEL_PREFIX}request-fingerprint"
"""On sessions with an idempotency key: hash of what was asked for."""


class PodState(StrEnum):
    """Value of the label `kubecoderun.io/state` on a pod."""

    WARM = "warm"
    ASSIGNED = "assigned"
    RETIRING = "retiring"


# --- condition types ------------------------------------------------------------------------------


class PoolCondition(StrEnum):
    """Condition types of an ExecutionPool."""

    TEMPLATE_ACCEPTED = "TemplateAccepted"
    AVAILABLE = "Available"
    PROGRESSING = "Progressing"
    STARVED = "Starved"


class SessionCondition(StrEnum):
    """Condition types of an ExecutionSession."""

    COMPLETED = "Completed"


class ConditionStatus(StrEnum):
    """Status of any condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


# --- ids and names --------------------------------------------------------------------------------

POOL_NAME_MAX_LENGTH: Final = 40
"""Leaves room in a pod's name (at most 63 characters) for a dash and eight random characters."""
SESSION_NAME_MAX_LENGTH: Final = 63
FRONT_END_NAME_LENGTH: Final = 21
FILE_ID_LENGTH: Final = 21
FILE_ID_PREFIX_LENGTH: Final = 13
ENV_NAME_MAX_LENGTH: Final = 128
RESERVED_ENV_PREFIX: Final = "KCR_"
"""Environment variables of KubeCodeRun itself."""

DNS_LABEL_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
ENV_NAME_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_]*$"
FILE_ID_PATTERN: Final = r"^[a-z0-9]{21}$"
front_end_session_pattern: Final = re.compile(r"[a-z0-9]{21}")
"""Names the front end gives to sessions, and the only ones it serves; use `fullmatch`."""

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_DNS_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL_VALUE: Final = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_FILE_ID: Final = re.compile(r"[a-z0-9]{21}")
_OBJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def random_text(length: int) -> str:
    """That many unpredictable characters of `[a-z0-9]` (5.17 bits each)."""
    made = ""
    while len(made) < length:
        # Bytes from the largest multiple of 36 on would make some characters likelier than others.
        made += "".join(_ALPHABET[byte % 36] for byte in secrets.token_bytes(2 * length) if byte < 252)
    return made[:length]


def session_name() -> str:
    """A new name for a session of the front end: 21 characters, 108 random bits."""
    return random_text(FRONT_END_NAME_LENGTH)


def session_name_from(digest: bytes) -> str:
    """The name of a session that follows from a hash of at least 16 bytes: as `session_name`, 108 bits."""
    if len(digest) < 16:
        raise ValueError("a digest of at least 16 bytes is needed")
    return _in_alphabet(digest, FRONT_END_NAME_LENGTH)


def _in_alphabet(digest: bytes, length: int) -> str:
    number = int.from_bytes(digest, "big")
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits += _ALPHABET[digit]
    return digits


def file_id_prefix(session: str) -> str:
    """The 13 characters `[a-z0-9]` that the ids of all files of a session begin with.

    They are the first ones of a name that the front end gave, so that the id of a file leads to its session;
    for any other name they come from a hash of it. Raises ValueError if the session's name is not valid.
    """
    if is_front_end_session_name(session):
        return session[:FILE_ID_PREFIX_LENGTH]
    if not is_session_name(session):
        raise ValueError("not a session name")
    return _in_alphabet(hashlib.sha256(session.encode("ascii")).digest(), FILE_ID_PREFIX_LENGTH)


def file_id(session: str) -> str:
    """A new id for a file of the session: 21 characters, the last 8 of them random.

    Raises ValueError if the session's name is not valid.
    """
    return file_id_prefix(session) + random_text(FILE_ID_LENGTH - FILE_ID_PREFIX_LENGTH)


def file_ids(session: str, count: int) -> list[str]:
    """That many new ids as of `file_id`."""
    prefix, length = file_id_prefix(session), FILE_ID_LENGTH - FILE_ID_PREFIX_LENGTH
    drawn = random_text(length * count)
    return [prefix + drawn[start : start + length] for start in range(0, len(drawn), length)]


def is_file_id(text: str) -> bool:
    """Whether text can be the id of a file."""
    return _FILE_ID.fullmatch(text) is not None


def label_value(text: str) -> str:
    """Any text as the value of a label: itself if that is possible, else `x-` and 40 digits of its SHA-256.

    So most ids can be written into a selector as they are. A text that looks like a hash is hashed as well.
    """
    if _LABEL_VALUE.fullmatch(text) and not text.startswith("x-"):
        return text
    return f"x-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}"


def pod_name(pool: str) -> str:
    """A new name for a pod of that pool. Raises ValueError if the pool's name is not valid."""
    if not is_pool_name(pool):
        raise ValueError("not a pool name")
    return f"{pool}-{random_text(8)}"


def is_dns_label(text: str, max_length: int = 63) -> bool:
    """Whether text is an RFC 1123 label: lower case letters, digits and inner dashes."""
    return len(text) <= max_length and _DNS_LABEL.fullmatch(text) is not None


def is_pool_name(text: str) -> bool:
    """Whether the API server accepts text as the name of a pool."""
    return is_dns_label(text, POOL_NAME_MAX_LENGTH)


def is_session_name(text: str) -> bool:
    """Whether the API server accepts text as the name of a session."""
    return is_dns_label(text, SESSION_NAME_MAX_LENGTH)


def is_front_end_session_name(text: str) -> bool:
    """Whether text can be the name of a session that the front end made (and may serve)."""
    return front_end_session_pattern.fullmatch(text) is not None


def is_env_name(text: str) -> bool:
    """Whether text may name an environment variable of a pool or a session."""
    return (
        len(text) <= ENV_NAME_MAX_LENGTH
        and _ENV_NAME.fullmatch(text) is not None
        and not text.startswith(RESERVED_ENV_PREFIX)
    )


def expiry_bucket(moment: datetime) -> str:
    """The UTC hour of an aware moment as `YYYYMMDDHH`.

    A session whose bucket is smaller than the bucket of now has expired; the label selector
    `kubecoderun.io/expires<BUCKET` finds all of those (selectors compare integers).
    Raises ValueError for a naive moment, whose hour is unknown.
    """
    if moment.tzinfo is None:
        raise ValueError("an expiry needs a time zone")
    return moment.astimezone(UTC).strftime("%Y%m%d%H")


# --- object keys ----------------------------------------------------------------------------------

CODE_OBJECT: Final = "code"
"""Code of a session that is too big to stand in its resource."""
RESULT_OBJECT: Final = "result.json"
"""The full kept result of a session. A file of a session stands under its id."""
METADATA_PATH: Final = "x-amz-meta-path"
"""Header of an object with the path of its file, for people; the session's resource is what counts."""


def namespace_prefix(install_id: str, namespace: str) -> str:
    """What the keys of all objects of all sessions of a namespace begin with, slash included.

    Raises ValueError unless both are DNS labels: nothing else may become part of a key.
    """
    if not (is_dns_label(install_id) and is_dns_label(namespace)):
        raise ValueError("install id and namespace must be DNS labels")
    return f"{install_id}/{namespace}/"


def session_prefix(install_id: str, namespace: str, session: str) -> str:
    """What the keys of all objects of one session begin with, slash included.

    Raises ValueError unless all three are DNS labels: nothing else may become part of a key.
    """
    if not (is_dns_label(install_id) and is_dns_label(namespace) and is_session_name(session)):
        raise ValueError("install id, namespace and session must be DNS labels")
    return f"{install_id}/{namespace}/{session}/"


def object_key(install_id: str, namespace: str, session: str, object: str) -> str:
    """Key of one object of a session in the store. Raises ValueError for a part that is not a plain name."""
    if _OBJECT.fullmatch(object) is None:
        raise ValueError("an object's name has letters, digits, dots, dashes and underscores only")
    return session_prefix(install_id, namespace, session) + object
