"""What routes add to their part of /openapi.json, and the document as a whole."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from kubecoderun_api import schemas

Json = dict[str, Any]
_WHEN: Final = {
    400: "the request cannot be understood or served as it is; the message says what to change",
    401: "no key or token, or one that is not known",
    403: "a key or token that may not do this",
    404: "there is no such file, or not any more",
    405: "this address does not answer to that method",
    409: "another call does the same right now, or has used the idempotency key",
    408: "the body did not arrive in time",
    413: "too large",
    416: "the file has no such part",
    429: "too much at once",
    500: "a fault of KubeCodeRun",
    503: "the cluster or the object store cannot do it now",
    504: "it took too long",
}
_DESCRIPTION: Final = """\
The protocol of LibreChat's code interpreter. Every address also works with `/v1` in front.

A program that fails, is killed or runs out of time is a 200 with text in `stderr`. Answers of `/exec` may
begin with white space: it keeps the connection alive while the program runs.
"""


def errors(*statuses: int) -> dict[int | str, Json]:
    """The `responses` of a route for these statuses."""
    return {
        status: {"model": schemas.Error, "description": _WHEN[status]} for status in sorted({*statuses, 500})
    }


def json_body(model: type[BaseModel]) -> Json:
    """The `openapi_extra` of a route that reads this JSON object."""
    return _body("application/json", _inlined(model.model_json_schema()))


def form_body() -> Json:
    """The `openapi_extra` of a route that reads a form with files."""
    return _body("multipart/form-data", schemas.FORM)


def _body(media_type: str, schema: Json) -> Json:
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}


def content(description: str, media_type: str = "application/octet-stream") -> Json:
    """One of the `responses` of a route that answers with bytes."""
    return {
        "description": description,
        "content": {media_type: {"schema": {"type": "string", "format": "binary"}}},
    }


def listing(*models: type[BaseModel]) -> Json:
    """One of the `responses` of a route that answers with a list of strings or of these."""
    elements = [{"type": "string"}, *(_inlined(model.model_json_schema()) for model in models)]
    schema = {"type": "array", "items": {"anyOf": elements}}
    return {"description": "the list", "content": {"application/json": {"schema": schema}}}


def describe(app: FastAPI) -> None:
    """Let the application tell all of it."""

    def document() -> Json:
        if app.openapi_schema is None:
            made = get_openapi(
                title="KubeCodeRun",
                version="1",
                description=_DESCRIPTION,
                routes=app.routes,
                servers=[{"url": "/"}, {"url": "/v1"}],
            )
            made.setdefault("components", {})["securitySchemes"] = {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            }
            made["security"] = [{"key": []}, {"bearer": []}]
            for operation in (one for path in made["paths"].values() for one in path.values()):
                operation["responses"].pop("422", None)  # FastAPI's own; parameters are ours to judge
            for unused in ("HTTPValidationError", "ValidationError"):
                made["components"].get("schemas", {}).pop(unused, None)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _inlined(schema: Json) -> Json:
    """A schema with its definitions in the places that refer to them: a part of a document has no room for
    them. None refers to itself."""
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolve(definitions[node["$ref"].rpartition("/")[2]])
            return {name: resolve(value) for name, value in node.items()}
        return [resolve(item) for item in node] if isinstance(node, list) else node

    made: Json = resolve(schema)
    return made
