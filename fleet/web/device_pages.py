# SPDX-License-Identifier: Apache-2.0
"""Pages of devices: the list with its search, one device, and what may be done to it."""

from collections.abc import Callable
from typing import Annotated, Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from edge_contract import canonical
from edge_contract.errors import UsageError
from fleet.adapters import bench_rows, device_states, labels, progress, tables, telemetry
from fleet.adapters.database import Connection
from fleet.adapters.search import SORTS, search
from fleet.web import views
from fleet.web.access import posted
from fleet.web.binder import Binder
from fleet.web.charts import drift_chart
from fleet.web.device_drift import device_drift
from fleet.web.faults import not_found
from fleet.web.rendering import see

__all__ = ["device_pages", "shown_device"]

_EVENTS: Final = 30
_SHOWN_EXECUTIONS: Final = 10


def shown_device(db: Connection, name: str, now: float) -> dict[str, Any] | None:
    """Return a device as a page shows it: its drift level in the style sheet's words; None if nobody knows it."""
    record = tables.device(db, name)
    if record is None:
        return None
    shown = views.device_json(db, record, now)
    shown["drift"]["level"] = shown["drift"]["level"].lower()
    return shown


def _event(row: dict[str, Any]) -> dict[str, Any]:
    """Return an event in words: its kind, and the rest as ``key value``; what is long or nested stays out."""
    body = dict(row["body"])
    verdict = body.get("verdict")
    reason = body.pop("reason", "") or (verdict.get("reason", "") if isinstance(verdict, dict) else "")
    kind = str(body.pop("kind", row["class"]))
    words = [f"{key} {str(value)[:12]}" for key, value in body.items() if isinstance(value, (str, int)) and value != ""]
    return {"class": row["class"], "time": row["time"], "kind": kind, "words": words, "reason": str(reason)}


def _twin(shown: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the settings side by side: key, what is wanted, what the device says."""
    wanted, told = shown["desired"]["config"], shown["config"]
    keys = sorted({*wanted, *told})
    same = {key: key not in wanted or wanted[key] == told.get(key) for key in keys}
    return [{"key": key, "wanted": wanted.get(key), "told": told.get(key), "same": same[key]} for key in keys]


def _device(binder: Binder, db: Connection, name: str) -> dict[str, Any] | None:
    now = binder.operations.clock()
    shown = shown_device(db, name, now)
    if shown is None:
        return None
    points = views.drift_points(db, name)
    return {
        "device": shown,
        "identity": binder.operations.identities.shown(db, name, now),
        "labels": labels.labels(db, name),
        "standing": device_states.standing(db, name),
        "twin": _twin(shown),
        "executions": [one.to_json() for one in progress.of_device(db, name, _SHOWN_EXECUTIONS)],
        "benchmarks": [one.to_json() for one in bench_rows.of_device(db, name, _SHOWN_EXECUTIONS)],
        "rows": telemetry.count_rows(db, name),
        "results": telemetry.result_count(db, name),
        "events": [_event(row) for row in views.plain(telemetry.events(db, name, _EVENTS))],
        "chart": drift_chart(points, shown["drift"]["reference_accuracy"]) if points else "",
        "windows": len(points),
        "around": device_drift(db, binder.operations.drift, name),
        "versions": {version.bundle: version.version for version in tables.models(db)},
    }


def device_pages(binder: Binder) -> None:
    """Add the list and the pages of single devices."""
    _look(binder)
    _change(binder)


def _look(binder: Binder) -> None:
    store, clock = binder.operations.store, binder.operations.clock

    @binder.router.get("/devices")
    def devices(request: Request, q: str = "", sort: str = "device", page: int = 1) -> Response:
        lines, now = binder.roster.lines(), clock()
        found = search(store, lines, q[:2000], now, sort=sort, page=page)
        order = sort if sort.removeprefix("-") in SORTS else "device"
        shown = [(line, line.is_online(now)) for line in found.lines]
        return binder.page(
            request, "devices.html", page="devices", found=found, shown=shown, q=q, sort=order, count=len(lines)
        )

    @binder.router.get("/devices/{name}")
    def device(request: Request, name: str) -> Response:
        found = store.read(lambda db: _device(binder, db, name))
        if found is None:
            raise not_found(f"device {name!r}")
        return binder.page(request, "device.html", page="devices", **found)


def _setting(text: str) -> Any:
    """Return a setting's value: JSON where it is, else the text itself.

    Example:
        >>> _setting("2.5"), _setting("true"), _setting("camera:0"), _setting("")
        (2.5, True, 'camera:0', None)
    """
    if not text:
        return None
    try:
        return canonical.loads(text.encode())
    except Exception:
        return text


def _labels_of(text: str) -> tuple[dict[str, str], list[str]]:
    """Return the labels that a form gives, and those that it takes away.

    Example:
        >>> _labels_of("site=hall lab -old")
        ({'site': 'hall', 'lab': ''}, ['old'])
    """
    words = text.replace(",", " ").split()
    put = {name: value for name, _, value in (word.partition("=") for word in words if not word.startswith("-"))}
    return put, [word[1:] for word in words if word.startswith("-")]


_DOINGS: Final[dict[str, tuple[str, str, str]]] = {
    "remove": (
        "Remove {name}",
        "Its certificate is revoked and no rollout waits for it. What it sent is kept; to come back it needs a token.",
        "Remove the device",
    ),
    "revoke": (
        "Revoke the certificate of {name}",
        "The device is cut off now and cannot come back with the certificate that it has.",
        "Revoke the certificate",
    ),
    "quarantine": (
        "Put {name} into quarantine",
        "It gets no orders, and what it sends is kept apart until you let it out.",
        "Put it into quarantine",
    ),
    "release": (
        "Let {name} out of quarantine",
        "It gets orders again. What it sent meanwhile stays apart.",
        "Let it out",
    ),
    "decommission": (
        "Decommission {name}",
        "It leaves the fleet for good: its certificate is revoked and its name is not given again. Its data are kept.",
        "Decommission the device",
    ),
    "forgive": (
        "Forget the suspicion about {name}",
        "The server thinks that two machines use this identity. Say so only when you know that there is one.",
        "There is one device",
    ),
}


def _change(binder: Binder) -> None:
    operations, operator = binder.operations, binder.access.operator
    verbs: dict[str, Callable[[str, str, str], Any]] = {
        "remove": lambda name, _reason, actor: operations.devices.remove(name, actor),
        "revoke": operations.identities.revoke,
        "forgive": lambda name, _reason, actor: operations.identities.forgive(name, actor),
        "quarantine": operations.standings.quarantine,
        "release": lambda name, _reason, actor: operations.standings.release(name, actor),
        "decommission": lambda name, _reason, actor: operations.standings.decommission(name, actor),
    }

    def known(verb: str) -> tuple[str, str, str]:
        if verb not in _DOINGS:
            raise not_found(f"page {verb!r}")
        return _DOINGS[verb]

    @binder.router.get("/devices/{name}/{verb}")
    async def ask(request: Request, actor: Annotated[str, operator], name: str, verb: str) -> Response:
        title, text, button = known(verb)
        where, title = f"/devices/{name}", title.format(name=name)
        return await binder.ask(
            request, page="devices", title=title, text=text, button=button, action=f"{where}/{verb}", back=where,
            reason=verb in ("revoke", "quarantine"), danger=verb not in ("forgive", "release"),
        )  # fmt: skip

    @binder.router.post("/devices/{name}/config")
    async def config(actor: Annotated[str, operator], name: str, form: Annotated[dict[str, str], posted]) -> Response:
        key = form.get("key", "").strip()
        if not key:
            raise UsageError("which setting?", where=f"device {name}")
        changes = {key: _setting(form.get("value", "").strip())}
        await run_in_threadpool(operations.devices.set_config, name, changes, actor)
        return see(f"/devices/{name}")

    @binder.router.post("/devices/{name}/labels")
    async def label(actor: Annotated[str, operator], name: str, form: Annotated[dict[str, str], posted]) -> Response:
        put, drop = _labels_of(form.get("labels", ""))
        await run_in_threadpool(operations.groups.label, [name], put, drop, actor)
        return see(f"/devices/{name}")

    @binder.router.post("/devices/{name}/{verb}")
    async def do(
        actor: Annotated[str, operator], name: str, verb: str, form: Annotated[dict[str, str], posted]
    ) -> Response:
        known(verb)
        await run_in_threadpool(verbs[verb], name, form.get("reason", ""), actor)
        return see("/devices" if verb in ("remove", "decommission") else f"/devices/{name}")
