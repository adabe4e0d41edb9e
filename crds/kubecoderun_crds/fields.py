"""What the models of both kinds are made of: the base model, CEL rules, and types used more than once."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from kubecoderun_crds import names
from kubecoderun_crds.printable import PLAIN_PATTERN, PRINTABLE_PATTERN

JsonObject = dict[str, Any]

MESSAGE_MAX_LENGTH: Final = 1024
"""Characters of a message in a status; `printable.printable(text, MESSAGE_MAX_LENGTH)` makes any text fit."""


class Model(BaseModel):
    """Base of all models: camelCase in JSON, immutable, and forgiving about fields of a newer version."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def as_dict(self) -> JsonObject:
        """The model as it goes into a resource; fields without a value are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


# --- parts of schemas -----------------------------------------------------------------------------


def rule(expression: str, message: str, reason: str | None = None) -> JsonObject:
    """One CEL rule. reason is one of the API server's field error reasons; FieldValueInvalid without one."""
    made = {"rule": expression, "message": message}
    return made if reason is None else {**made, "reason": reason}


def rules(*made: JsonObject) -> JsonObject:
    """Schema extra with these rules, for a field or for a model's config."""
    return {"x-kubernetes-validations": list(made)}


def map_list(*keys: str) -> JsonObject:
    """Schema extra for a list whose items are found by these keys: unique, and merged one by one."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


SET_LIST: Final[JsonObject] = {"x-kubernetes-list-type": "set"}
ATOMIC_LIST: Final[JsonObject] = {"x-kubernetes-list-type": "atomic"}
ATOMIC_MAP: Final[JsonObject] = {"x-kubernetes-map-type": "atomic"}

# --- scalar types ---------------------------------------------------------------------------------

Language = Literal["py", "js", "ts", "bash", "c", "cpp", "java", "php", "rs", "go", "d", "f90", "r"]
LANGUAGES: Final[tuple[str, ...]] = get_args(Language)

QUANTITY_PATTERN: Final = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"


def _quantity_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    BeforeValidator(_quantity_text),
    Field(max_length=24, pattern=QUANTITY_PATTERN),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "maxLength": 24,
            "pattern": QUANTITY_PATTERN,
        }
    ),
]
"""An amount such as `500m`, `1.5` or `256Mi`; a bare number is read as text."""

Timestamp = Annotated[datetime, WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 64})]

PoolName = Annotated[
    str, Field(min_length=1, max_length=names.POOL_NAME_MAX_LENGTH, pattern=names.DNS_LABEL_PATTERN)
]
ResourceName = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
LabelKey = Annotated[
    str,
    Field(min_length=1, max_length=317, pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"),
]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]
LabelMap = Annotated[dict[str, LabelValue], Field(max_length=32)]
ShortText = Annotated[str, Field(max_length=4096, pattern=PLAIN_PATTERN)]
"""An argument, a value of an environment variable or of an annotation: of control characters only tab, line
feed and carriage return."""
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
BigCount = Annotated[int, Field(ge=0)]
Message = Annotated[str, Field(max_length=MESSAGE_MAX_LENGTH, pattern=PRINTABLE_PATTERN)]

# --- models that both kinds use -------------------------------------------------------------------


class EnvVar(Model):
    """One environment variable."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                f"!self.name.startsWith('{names.RESERVED_ENV_PREFIX}')",
                f"names must not begin with {names.RESERVED_ENV_PREFIX}",
                "FieldValueForbidden",
            )
        )
    )

    name: Annotated[
        str, Field(min_length=1, max_length=names.ENV_NAME_MAX_LENGTH, pattern=names.ENV_NAME_PATTERN)
    ]
    """Letters, digits and underscores; KCR_ at the beginning is reserved."""
    value: ShortText = ""
    """The value; of control characters only tab, line feed and carriage return."""


class Condition(Model):
    """One aspect of the current state, in the usual form of Kubernetes conditions."""

    type: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    """What the condition is about."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    """Why, as one word for programs."""
    message: Message = ""
    """Why, as a sentence for people."""
    last_transition_time: Timestamp
    """When the status last changed."""
    observed_generation: BigCount | None = None
    """The metadata.generation this was found out about."""


def cel_list(values: Sequence[str]) -> str:
    """A CEL list of these texts."""
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"
