# SPDX-License-Identifier: Apache-2.0
"""The endpoint's description for machines: OpenAPI 3.1, with the name of the model that answers now."""

from typing import Any, Final

from edge_agent.runner.model import Model
from edge_agent.serve.instances import DTYPES, MAX_INSTANCES, natural_dtype

__all__ = ["document"]

_ERROR: Final = {"$ref": "#/components/schemas/Error"}
_STATUSES: Final = {
    "400": "The input is malformed, of another shape or type, or breaks the input contract.",
    "404": "No such model or address.",
    "413": "The body is too large.",
    "415": "A type of body that cannot be read here.",
    "500": "The runtime failed.",
    "503": "No model yet, or too many requests wait; Retry-After says how long to pause.",
}
_NUMBER: Final = {"type": "number"}
_PREDICTION: Final = {
    "type": "object",
    "description": "A classifier's class, label and confidence; a detector's boxes; of others their values.",
    "properties": {
        "class": {"type": "integer"},
        "label": {"type": "string"},
        "confidence": _NUMBER,
        "is_sure": {"type": "boolean", "description": "Left out where it is true."},
        "boxes": {"type": "array", "items": {"type": "object"}},
        "values": {"type": "object"},
        "latency_us": _NUMBER,
    },
    "required": ["latency_us"],
}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _operation(name: str, summary: str, schema: dict[str, Any], *statuses: str) -> dict[str, Any]:
    failures = {status: {"description": _STATUSES[status], **_json(_ERROR)} for status in statuses}
    good = {"200": {"description": "Done.", **_json(schema)}}
    return {"operationId": name, "summary": summary, "responses": {**good, **failures}}


def document(model: Model | None) -> dict[str, Any]:
    """Return the description; without a model its name stays a parameter."""
    name = model.contents.manifest.model if model is not None and model.contents is not None else "{name}"
    whole: dict[str, Any] = {"type": "object"}
    dtype = natural_dtype(model.description.preprocess) if model is not None else "uint8"
    paths: dict[str, Any] = {
        "/healthz": {"get": _operation("health", "Whether the process answers.", whole)},
        "/readyz": {"get": _operation("ready", "Whether a model answers.", whole, "503")},
        "/v1/models": {"get": _operation("models", "The models here.", whole)},
        f"/v1/models/{name}": {"get": _operation("model", "What the model is.", whole, "404", "503")},
        f"/v1/models/{name}:predict": {"post": _predict(dtype)},
    }
    if name == "{name}":
        named = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
        for path, item in paths.items():
            if "{name}" in path:
                item["parameters"] = named
    schemas = {"Error": _error(), "Prediction": _PREDICTION}
    info = {"title": "Strop local endpoint", "version": "1", "description": "The model on this device."}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _error() -> dict[str, Any]:
    fields = {"code": {"type": "string"}, "message": {"type": "string"}}
    inner = {"type": "object", "properties": fields, "required": ["code", "message"]}
    return {"type": "object", "properties": {"error": inner}, "required": ["error"]}


def _predict(dtype: str) -> dict[str, Any]:
    answer = {
        "type": "object",
        "properties": {
            "predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}},
            "model": {"type": "string"},
            "version": {"type": "string"},
            "bundle": {"type": "string"},
        },
        "required": ["predictions", "model", "version", "bundle"],
    }
    bytes_ = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    query = [("shape", "Sides of plain bytes, such as 28,28; an .npy file says it itself."), ("dtype", "Their type.")]
    return {
        **_operation("predict", "Answer raw inputs.", answer, "400", "404", "413", "415", "500", "503"),
        "parameters": [
            {"name": key, "in": "query", "description": text, "schema": {"type": "string"}} for key, text in query
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "instances": {"type": "array", "minItems": 1, "maxItems": MAX_INSTANCES},
                            "dtype": {"type": "string", "enum": list(DTYPES), "default": dtype},
                        },
                        "required": ["instances"],
                        "additionalProperties": False,
                    }
                },
                "application/octet-stream": bytes_,
                "image/jpeg": bytes_,
                "image/png": bytes_,
            },
        },
    }
