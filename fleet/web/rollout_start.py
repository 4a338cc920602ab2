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
}
_SHOWN_NAMES: Final = 12


def _minutes(form: dict[str, str], key: str) -> float:
    try:
        return float(form.get(key) or _DEFAULTS[key]) * 60.0
    except ValueError as error:
        raise UsageError(f"{form[key][:20]!r} is not a number of minutes") from error


def _document(db: Connection, form: dict[str, str]) -> dict[str, Any]:
    """Return the request that the API would take."""
    bundle = form.get("bundle", "")
    version = tables.model(db, bundle)
    if version is None:
        raise UsageError("choose a model", fix="register one: strop fleet model add")
    try:
        forgiven = int(form.get("max_failures") or 0)
    except ValueError as error:
        raise UsageError(f"{form['max_failures'][:20]!r} is not a number of devices") from error
    document: dict[str, Any] = {
        "model": version.model,
        "bundle": bundle,
        "waves": list(read_waves(form.get("waves", ""))),
        "soak_s": _minutes(form, "soak_min"),
        "timeout_s": _minutes(form, "timeout_min"),
        "max_failures": forgiven,
        "on_failure": form.get("on_failure") or "stop",
    }
    if form.get("gates"):
        document["gates"] = {}
    if form.get("approval"):
        document["needs_approval"] = True
    return document


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
            return shown(request, form, waves=waves, plan=plan, seen=seen, changed=is_start)

        return await run_in_threadpool(act)
