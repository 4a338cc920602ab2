# SPDX-License-Identifier: Apache-2.0
"""What each address answers: a request as a value in, a response as a value out; no socket here."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from numpy.typing import NDArray

from edge_agent.runner.answers import facts
from edge_agent.runner.model import Model
from edge_agent.runner.proving import words
from edge_agent.serve import instances, openapi
from edge_agent.serve.desk import RETRY_AFTER_S, BusyError, Desk
from edge_contract.errors import DataError, MissingDependencyError, StropError, UsageError

__all__ = ["Api", "Request", "Response", "failure"]

Array = NDArray[Any]
_MODELS: Final = "/v1/models/"
_PICTURES: Final = ("image/jpeg", "image/png", "image/bmp", "image/webp")


@dataclass(frozen=True)
class Request:
    """One request: method, target as it stands in the request line, type of the body, and the body."""

    method: str
    target: str
    content_type: str = ""
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """One response; the document becomes JSON."""

    status: int
    document: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the body."""
        return json.dumps(self.document, separators=(",", ":")).encode()


def failure(status: int, code: str, message: str, **headers: str) -> Response:
    """Return a response that says what went wrong, for programs (``code``) and for people (``message``)."""
    return Response(status, {"error": {"code": code, "message": message[:500]}}, headers)


class Api:
    """Answers requests with what a desk knows. Thread-safe.

    Args:
        desk: Where the model is.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._fixed: Mapping[str, Callable[[], Response]] = {
            "/healthz": lambda: Response(200, {"status": "ok"}),
            "/readyz": self._ready,
            "/openapi.json": lambda: Response(200, openapi.document(self._desk.model())),
            "/v1/models": self._models,
        }

    def answer(self, request: Request) -> Response:
        """Return the response to a request; whatever goes wrong is a response, too."""
        try:
            return self._route(request)
        except BusyError as error:
            return failure(503, "busy", str(error), **{"Retry-After": str(RETRY_AFTER_S)})
        except MissingDependencyError as error:
            return failure(415, "cannot_read", str(error))
        except (DataError, UsageError) as error:
            return failure(400, "bad_input", str(error))
        except StropError as error:
            return failure(500, "inference_failed", str(error))
        except Exception as error:  # a fault of ours must not end the connection without a word
            return failure(500, "internal", words(error))

    def _route(self, request: Request) -> Response:
        try:
            url = urlsplit(request.target)
            path = unquote(url.path, errors="strict")
        except ValueError:
            return failure(400, "bad_request", "the address cannot be read")
        if path in self._fixed:
            return self._fixed[path]() if request.method in ("GET", "HEAD") else _not_allowed("GET, HEAD")
        if not path.startswith(_MODELS):
            return failure(404, "not_found", f"nothing is at {path!r}; see /openapi.json")
        name, _, verb = path.removeprefix(_MODELS).partition(":")
        model = self._desk.model()
        if model is None:
            return failure(503, "not_ready", "no model is loaded yet", **{"Retry-After": str(RETRY_AFTER_S)})
        if name != _name(model):
            return failure(404, "not_found", f"there is no model {name[:63]!r}, but '{_name(model)}'")
        if not verb:
            return Response(200, _about(model)) if request.method in ("GET", "HEAD") else _not_allowed("GET, HEAD")
        if verb != "predict":
            return failure(404, "not_found", f"a model cannot {verb[:63]!r}; use predict")
        if request.method != "POST":
            return _not_allowed("POST")
        return self._predict(request, model, dict(parse_qsl(url.query)))

    def _predict(self, request: Request, model: Model, query: Mapping[str, str]) -> Response:
        raws = _inputs(request, model, query)
        if raws is None:
            known = ", ".join(("application/json", "application/octet-stream", *_PICTURES))
            return failure(415, "cannot_read", f"a body of type {request.content_type[:60]!r}; send {known}")
        found: list[dict[str, Any]] = []
        for place, raw in enumerate(raws):
            try:
                answer, model = self._desk.ask(raw)
            except DataError as error:
                raise DataError(error.what, where=f"instances[{place}]", fix=error.fix) from error
            found.append(facts(answer, model.labels))
        return Response(200, {"predictions": found, **_who(model)})

    def _ready(self) -> Response:
        model = self._desk.model()
        if model is None:
            return failure(503, "not_ready", "no model is loaded yet", **{"Retry-After": str(RETRY_AFTER_S)})
        return Response(200, {"status": "ready", **_who(model)})

    def _models(self) -> Response:
        model = self._desk.model()
        return Response(200, {"models": [] if model is None else [_about(model)]})


def _inputs(request: Request, model: Model, query: Mapping[str, str]) -> list[Array] | None:
    kind = request.content_type.partition(";")[0].strip().lower()
    preprocess = model.description.preprocess
    if kind == "application/json":
        return instances.from_json(request.body, preprocess)
    if kind == "application/octet-stream":
        return instances.from_array_bytes(request.body, preprocess, query)
    return instances.from_picture(request.body, preprocess) if kind in _PICTURES else None


def _not_allowed(methods: str) -> Response:
    return failure(405, "not_allowed", f"use {methods}", Allow=methods)


def _name(model: Model) -> str:
    return model.contents.manifest.model if model.contents is not None else "model"


def _who(model: Model) -> dict[str, Any]:
    return {"model": _name(model), "version": model.version, "bundle": model.bundle}


def _about(model: Model) -> dict[str, Any]:
    preprocess = model.description.preprocess
    session = model.session
    return {
        **_who(model),
        "task": model.task,
        "labels": list(model.labels),
        "dtype": instances.natural_dtype(preprocess),
        "preprocess": preprocess.to_json(),
        "runtime": {"name": session.runtime, "version": session.version, "delegate": session.delegate},
    }
