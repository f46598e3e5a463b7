"""Describe the service as OpenAPI 3.1: a path for each set and source that a token may use, typed as they are declared."""

from typing import TYPE_CHECKING, Any

from featreg.serve.tokens import Holder
from featreg.vocabulary import DataType

if TYPE_CHECKING:
    from featreg.compile import Compiled, CompiledSet
    from featreg.define import EventSource

_ERRORS = {
    "400": "The request is not of the form that is described here.",
    "401": "No token, an unknown one, or one that has expired.",
    "403": "The token may not do this.",
    "404": "There is no such set, source or pin.",
    "408": "The body did not come in time.",
    "409": "Refused: an instant that the store can no longer answer, or an id that was used for other rows.",
    "413": "The body is too large, or has too many keys or rows.",
    "415": "The body is of no type that is taken.",
    "422": "A value does not fit its declared type.",
    "503": "The store does not answer, or the service has more to do than it can; ask again.",
    "504": "The answer did not come in time.",
}
_STATUS = {"type": "string", "enum": ["ok", "empty", "stale", "error", "missing"]}
_INSTANT = {"type": "string", "format": "date-time"}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["kind", "message"],
            "properties": {"kind": {"type": "string"}, "message": {"type": "string"}, "request": {"type": "string"}},
        }
    },
}


def describe(compiled: "Compiled", holder: Holder) -> dict[str, Any]:
    """The document, for what the holder may read and push."""
    paths: dict[str, Any] = {}
    for name, feature_set in compiled.sets.items():
        if holder.may_read(name):
            paths[f"/v1/features/{name}"] = {"post": _read_operation(compiled, feature_set)}
    for name, source in compiled.sources.items():
        if holder.may_push(name):
            paths[f"/v1/push/{name}"] = {"post": _push_operation(source)}
    for path, what in (("/healthz", "Whether the process answers."), ("/readyz", "Whether requests can be answered now.")):
        answers = {"200": _answer("Yes.", {"type": "object"})}
        if path == "/readyz":
            answers["503"] = _answer("Not now; the reason is told.", {"type": "object"})
        paths[path] = {"get": {"summary": what, "operationId": path[1:], "security": [], "responses": answers}}
    paths["/metrics"] = {
        "get": {
            "summary": "Numbers for Prometheus.",
            "operationId": "metrics",
            "responses": {"200": {"description": "Text.", "content": {"text/plain": {"schema": {"type": "string"}}}}}
            | _errors("401", "403"),
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "featreg", "version": "1", "description": "Feature vectors and pushes; the bits of the training set."},
        "security": [{"token": []}],
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}, "schemas": {"Error": _ERROR}},
        "paths": paths,
    }


def schema_of(kind: DataType) -> dict[str, Any]:
    """What a value of the type is in JSON, NULL included."""
    match kind.name:
        case "BIGINT":
            return {"type": ["integer", "null"], "minimum": -(1 << 63), "maximum": (1 << 63) - 1}
        case "INTEGER":
            return {"type": ["integer", "null"], "minimum": -(1 << 31), "maximum": (1 << 31) - 1}
        case "DOUBLE" | "FLOAT":
            return {"anyOf": [{"type": ["number", "null"]}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
        case "DECIMAL":
            return {"type": ["string", "null"], "pattern": r"^-?\d{1,38}(\.\d{1,38})?$", "description": str(kind)}
        case "BOOLEAN":
            return {"type": ["boolean", "null"]}
        case "DATE":
            return {"type": ["string", "null"], "format": "date"}
        case "TIMESTAMP":
            return {"type": ["string", "null"], "format": "date-time"}
        case "LIST":
            return {"type": ["array", "null"], "items": schema_of(kind.element)}  # type: ignore[arg-type]
        case "MAP":
            pair = {"type": "array", "prefixItems": [schema_of(kind.element), {"type": "integer"}], "minItems": 2, "maxItems": 2}  # type: ignore[arg-type]
            return {"type": ["array", "null"], "items": pair}
    return {"type": ["string", "null"]}


def _row(columns: list[tuple[str, DataType]]) -> dict[str, Any]:
    """An object of columns; an integer column's DOUBLE is written as any number."""
    return {
        "type": "object",
        "required": sorted({name for name, _ in columns}),
        "properties": {name: schema_of(kind) for name, kind in columns},
    }


def _read_operation(compiled: "Compiled", feature_set: "CompiledSet") -> dict[str, Any]:
    columns = list(feature_set.request)
    for lookup in feature_set.lookups:
        columns += zip(lookup.spine_columns, (kind for _, kind in compiled.views[lookup.view].key))
    row = _row(columns)
    by_view = {"type": "object", "additionalProperties": {"anyOf": [_INSTANT, {"type": "null"}]}}
    types = {"type": "object", "properties": {"id": {"type": "string"}, "features": {"type": "object"}}}
    vector = {
        "type": "object",
        "required": ["values", "status", "cutoff", "watermark"],
        "properties": {
            "values": {"type": "object", "properties": {name: schema_of(kind) for name, kind in feature_set.columns}},
            "status": {"type": "object", "additionalProperties": _STATUS},
            "cutoff": by_view,
            "watermark": by_view,
            "types": types,
        },
    }
    vectors = {"type": "object", "required": ["vectors"], "properties": {"vectors": {"type": "array", "items": vector}, "types": types}}
    body = {
        "type": "object",
        "required": ["keys"],
        "additionalProperties": False,
        "properties": {
            "keys": {"anyOf": [row, {"type": "array", "items": row}]},
            "at": {"anyOf": [_INSTANT, {"type": "null"}], "description": "Another instant than now."},
            "pin": {"type": ["string", "null"], "description": "A model's versions, MODEL:VERSION."},
            "types": {
                "type": ["string", "null"],
                "description": "The id of the types that are known.",
            },
        },
    }
    return {
        "summary": feature_set.definition.description or f"Vectors of {feature_set.name}.",
        "operationId": f"read_{feature_set.name}",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": _answer("A vector, or vectors in the order of the keys.", {"anyOf": [vector, vectors]})} | _errors(*_ERRORS),
    }


def _push_operation(source: "EventSource") -> dict[str, Any]:
    row = _row(list(source.columns))
    body = {
        "type": "object",
        "required": ["rows"],
        "additionalProperties": False,
        "properties": {"rows": {"type": "array", "items": row}, "id": {"type": ["string", "null"]}},
    }
    receipt = {
        "type": "object",
        "required": ["source", "accepted", "rejected", "duplicate"],
        "properties": {
            "source": {"type": "string"},
            "id": {"type": ["string", "null"]},
            "accepted": {"type": "integer"},
            "duplicate": {"type": "boolean"},
            "rejected": {"type": "array", "items": {"type": "object", "required": ["row", "reason"]}},
            "watermark": {"anyOf": [_INSTANT, {"type": "null"}]},
        },
    }
    return {
        "summary": source.description or f"Rows of {source.name} as they happen.",
        "operationId": f"push_{source.name}",
        "parameters": [
            {"name": "id", "in": "query", "required": False, "schema": {"type": "string"}, "description": "The push's id, for Arrow."}
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": body},
                "application/vnd.apache.arrow.stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        "responses": {"200": _answer("What became of the rows.", receipt)} | _errors(*_ERRORS),
    }


def _answer(what: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": what, "content": {"application/json": {"schema": schema}}}


def _errors(*codes: str) -> dict[str, Any]:
    return {code: _answer(_ERRORS[code], {"$ref": "#/components/schemas/Error"}) for code in codes}
