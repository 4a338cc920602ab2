# SPDX-License-Identifier: Apache-2.0
"""Start a rollout by form: what, in which waves, under which limits; the plan is shown before anything happens."""

from typing import Annotated, Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from edge_contract import canonical
from edge_contract.errors import StropError, UsageError
from fleet.adapters import tables
from fleet.adapters.database import Connection
from fleet.core.pace import pace_words
from fleet.core.wave_words import read_waves
from fleet.web.access import posted
from fleet.web.binder import Binder
from fleet.web.rendering import see

__all__ = ["rollout_start"]

_DEFAULTS: Final = {
    "bundle": "",
    "waves": "1\n10%\nrest",
    "soak_min": "30",
    "timeout_min": "60",
    "max_failures": "0",
    "offline": "wait",
    "away_h": "24",
    "clock": "utc",
}
_SHOWN_NAMES: Final = 12


def _number(form: dict[str, str], key: str, what: str, default: str = "0") -> float:
    try:
        return float(form.get(key, "").strip() or _DEFAULTS.get(key, default))
    except ValueError as error:
        raise UsageError(f"{form[key][:20]!r} is not a number of {what}") from error


def _count(form: dict[str, str], key: str, what: str) -> int:
    try:
        return int(form.get(key, "").strip() or _DEFAULTS.get(key, "0"))
    except ValueError as error:
        raise UsageError(f"{form[key][:20]!r} is not a number of {what}") from error


def _document(db: Connection, form: dict[str, str]) -> dict[str, Any]:
    """Return the request that the API would take."""
    bundle = form.get("bundle", "")
    version = tables.model(db, bundle)
    if version is None:
        raise UsageError("choose a model", fix="register one: strop fleet model add")
    document: dict[str, Any] = {
        "model": version.model,
        "bundle": bundle,
        "waves": list(read_waves(form.get("waves", ""))),
        "soak_s": 60.0 * _number(form, "soak_min", "minutes"),
        "timeout_s": 60.0 * _number(form, "timeout_min", "minutes"),
        "max_failures": _count(form, "max_failures", "devices"),
        "on_failure": form.get("on_failure") or "stop",
        **_pace(form),
    }
    if form.get("gates"):
        document["gates"] = {}
    if form.get("approval"):
        document["needs_approval"] = True
    if channel := form.get("channel", "").strip():
        document["channel"] = channel
    return document


def _pace(form: dict[str, str]) -> dict[str, Any]:
    """Return how fast orders leave, when they may, and what becomes of devices that are away; defaults stay unsaid."""
    pace: dict[str, Any] = {}
    if form.get("per_minute", "").strip():
        pace["rate"] = {"per_minute": _number(form, "per_minute", "devices a minute")}
        if form.get("double_after", "").strip():
            after = _count(form, "double_after", "devices")
            pace["rate"] |= {"factor": 2.0, "after": after, "most": _number(form, "most", "devices a minute")}
    elif form.get("double_after", "").strip() or form.get("most", "").strip():
        raise UsageError("a rate that grows needs one to begin with", fix="say how many devices a minute at first")
    windows = [line.strip() for line in form.get("windows", "").splitlines() if line.strip()]
    if windows:
        pace["schedule"] = {"windows": windows, "clock": form.get("clock") or "utc"}
    policy = form.get("offline") or "wait"
    if policy != "wait":
        away = {"after_s": 3600.0 * _number(form, "away_h", "hours")} if policy == "skip" else {}
        pace["offline"] = {"policy": policy, **away}
    return pace


def _waves(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return which devices stand in which wave of a plan."""
    return [
        {
            "number": i,
            "kind": wave["kind"],
            "count": len(wave["devices"]),
            "names": list(wave["devices"][:_SHOWN_NAMES]),
        }
        for i, wave in enumerate(plan["waves"], 1)
    ]


def rollout_start(binder: Binder) -> None:
    """Add the form, the plan and the start."""
    operations, operator = binder.operations, binder.access.operator
    store = operations.store

    def shown(request: Request, form: dict[str, str], number: int = 200, **values: Any) -> Response:
        models = store.read(tables.models)
        return binder.page(request, "rollout_new.html", number, page="rollouts", form=form, models=models, **values)

    @binder.router.get("/rollouts/new")
    async def new(request: Request, actor: Annotated[str, operator], bundle: str = "") -> Response:
        return await run_in_threadpool(shown, request, {**_DEFAULTS, "bundle": bundle, "gates": "on"})

    @binder.router.post("/rollouts/new")
    async def planned(
        request: Request, actor: Annotated[str, operator], form: Annotated[dict[str, str], posted]
    ) -> Response:
        def act() -> Response:
            try:
                document = store.read(lambda db: _document(db, form))
                plan = operations.rollouts.plan(document, actor)
                waves, is_start = _waves(plan), form.get("go") == "start"
                seen = canonical.digest(canonical.dumps([document, waves]))
                if is_start and form.get("seen") == seen:
                    return see(f"/rollouts/{operations.rollouts.start(document, actor).id}")
            except StropError as error:
                return shown(request, form, 400, error=str(error))
            pace = pace_words(plan["limits"])
            return shown(request, form, waves=waves, plan=plan, seen=seen, changed=is_start, pace=pace)

        return await run_in_threadpool(act)
