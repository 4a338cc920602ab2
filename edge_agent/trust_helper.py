# SPDX-License-Identifier: Apache-2.0
"""``python -m edge_agent.trust_helper``: one JSON request on stdin, one JSON answer on stdout, then the end.

The control process stays small because everything that needs tuf or cryptography happens here, and memory goes
back to the system when it is done. Requests::

    {"op": "enrol", "data": DIR, "server": URL, "token": TEXT, "device": NAME, "replace": false}
        → {"ok": true, "endpoints": {…}}
    {"op": "refresh", "data": DIR, "base_url": URL, "targets": [SHA256, …], "model": NAME, "now": SECONDS}
        → {"ok": true, "targets": {SHA256: {"length": BYTES, "custom": {…}}}}
    {"op": "verify_job", "data": DIR, "device": NAME, "envelope": TEXT, "now": SECONDS}
        → {"ok": true, "job": {…}}
    {"op": "care", "data": DIR, "device": NAME, "now": SECONDS, "force": false}
        → {"ok": true, "renewed": …, "serial": …, "not_before": …, "not_after": …}
    {"op": "capture", "data": DIR, "device": NAME, "allowed": …, "may_send": …, "now": SECONDS}
        → {"ok": true, "campaign": …, "sent": …, "waiting": …, "forgotten": …, "refused": …}
    {"op": "check_bench", "data": DIR, "device": NAME, "envelope": TEXT, "now": SECONDS}
        → {"ok": true, "job": {…}}
    {"op": "send_bench", "data": DIR}
        → {"ok": true, "sent": …, "refused": …}
    {"op": "build", "data": DIR, "release": ID, "version": TEXT, "python": PATH,
     "wheels": [{"name": …, "version": …, "sha256": …, "path": …}, …]}
        → {"ok": true, "version": …, "protocol": …, "journal": …, "device": …}

A refusal is ``{"ok": false, "error": CLASS, "what": …, "where": …, "fix": …}``, with a class of
``edge_contract.errors``. ``now`` is the system's clock and may be left out.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from edge_contract import canonical
from edge_contract.errors import MessageError, MissingDependencyError, StropError
from edge_contract.fields import Fields

__all__ = ["answer", "main"]

_MAX_REQUEST_BYTES: Final = 1_000_000


def _now(request: Fields) -> float:
    return request.number("now", time.time())


def _enrol(request: Fields) -> dict[str, Any]:
    from edge_agent.adapters.enrol import enrol

    data, replace = Path(request.text("data")), request.flag("replace", False)
    endpoints = enrol(data, request.text("server"), request.text("token"), request.text("device"), replace=replace)
    return {"endpoints": endpoints}


def _refresh(request: Fields) -> dict[str, Any]:
    from edge_agent.adapters.tuf_client import refresh

    data, base_url = Path(request.text("data")), request.text("base_url")
    model = request.text("model", "")
    return {"targets": refresh(data, base_url, request.texts("targets"), _now(request), model)}


def _verify_job(request: Fields) -> dict[str, Any]:
    from edge_agent.adapters.jobs import verify

    envelope, data = request.text("envelope").encode(), Path(request.text("data"))
    return {"job": verify(envelope, data, request.text("device"), _now(request)).to_json()}


def _care(request: Fields) -> dict[str, Any]:
    from edge_agent.adapters.renewal import care

    data, device = Path(request.text("data")), request.text("device")
    return care(data, device, _now(request), force=request.flag("force", False))


def _capture(request: Fields) -> dict[str, Any]:
    from edge_agent.capture.errand import run

    data, device = Path(request.text("data")), request.text("device")
    allowed, may_send = request.flag("allowed"), request.flag("may_send", False)
    return run(data, device, _now(request), allowed=allowed, may_send=may_send)


def _check_bench(request: Fields) -> dict[str, Any]:
    from edge_agent.bench.errand import check

    envelope, data = request.text("envelope").encode(), Path(request.text("data"))
    return {"job": check(envelope, data, request.text("device"), _now(request)).to_json()}


def _send_bench(request: Fields) -> dict[str, Any]:
    from edge_agent.bench.errand import send

    return send(Path(request.text("data")))


def _build(request: Fields) -> dict[str, Any]:
    from edge_agent.software.build import Order, Wheel, build

    wheels = []
    for i, document in enumerate(request.items("wheels")):
        f = Fields(document, f"request.wheels[{i}]", MessageError)
        wheels.append(Wheel(f.text("name"), f.text("version"), f.digest("sha256"), Path(f.text("path"))))
    whose = (Path(request.text("data")), request.text("release"), request.text("version"), request.text("python"))
    return build(Order(*whose, tuple(wheels)))


OPERATIONS: Final[Mapping[str, Callable[[Fields], dict[str, Any]]]] = {
    "enrol": _enrol,
    "refresh": _refresh,
    "verify_job": _verify_job,
    "care": _care,
    "capture": _capture,
    "check_bench": _check_bench,
    "send_bench": _send_bench,
    "build": _build,
}


def answer(data: bytes) -> dict[str, Any]:
    """Return the answer to a request; whatever goes wrong is an answer, too.

    Example:
        >>> answer(b'{"op":"sing"}')["what"]
        "unknown value 'sing'"
    """
    try:
        request = Fields(canonical.loads(data, where="request"), "request", MessageError)
        operation = OPERATIONS[request.text("op", among=tuple(OPERATIONS))]
        return {"ok": True, **operation(request)}
    except StropError as error:
        return _refusal(error)
    except ImportError as error:
        fix = "pip install 'strop[agent]'"
        return _refusal(MissingDependencyError(f"{error.name or error} is not installed", fix=fix))
    except Exception as error:
        return _refusal(StropError(f"{type(error).__name__}: {error}", where="trust helper"))


def _refusal(error: StropError) -> dict[str, Any]:
    return {"ok": False, "error": type(error).__name__, "what": error.what, "where": error.where, "fix": error.fix}


def main() -> int:
    """Answer one request; exit code 0 if it was granted."""
    reply = answer(sys.stdin.buffer.read(_MAX_REQUEST_BYTES))
    sys.stdout.buffer.write(json.dumps(reply, sort_keys=True).encode())
    sys.stdout.flush()
    return 0 if reply["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
