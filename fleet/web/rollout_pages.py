# SPDX-License-Identifier: Apache-2.0
"""Pages of rollouts: the list, one with its live waves and the evidence, and its buttons."""

from typing import Annotated, Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from edge_contract.states import ROLLOUT, RolloutEvent
from fleet.adapters import evidence, progress, tables
from fleet.adapters.database import Connection
from fleet.core.pace import pace_words
from fleet.core.rollout import Rollout
from fleet.web import views
from fleet.web.access import posted
from fleet.web.binder import Binder
from fleet.web.charts import interval_bar
from fleet.web.faults import not_found
from fleet.web.rendering import see

__all__ = ["rollout_pages", "summary"]

_LIST: Final = 25
_SHOWN: Final = 50
_SHOWN_NAMES: Final = 20
_BUCKET_WORDS: Final = {
    "failed": "failed",
    "regressed": "went back after a success",
    "retry": "failed, tried again",
    "open": "at work or waiting",
    "excused": "excused",
    "succeeded": "succeeded",
}
_VERBS: Final[dict[str, tuple[RolloutEvent, str, str, str]]] = {
    "approve": (RolloutEvent.APPROVE, "Approve", "The rollout goes on as planned. Its author cannot do this.", ""),
    "deny": (RolloutEvent.DENY, "Deny", "The rollout ends here; no device has had an order.", "danger"),
    "release": (RolloutEvent.SCHEDULE, "Start", "The draft starts as planned.", ""),
    "pause": (RolloutEvent.PAUSE, "Pause", "No new order leaves. Devices at work finish; failures still count.", ""),
    "resume": (RolloutEvent.RESUME, "Resume", "Orders leave again where the rollout stopped.", ""),
    "cancel": (
        RolloutEvent.CANCEL,
        "Cancel",
        "Each device is asked to stop and answers for itself; devices that succeeded stay as they are.",
        "danger",
    ),
    "abort": (
        RolloutEvent.ABORT,
        "Abort",
        "It ends at once. Orders that nobody has begun are called back; devices that succeeded stay as they are.",
        "danger",
    ),
    "rollback": (
        RolloutEvent.ROLL_BACK,
        "Roll back",
        "Every device that this rollout has changed gets the last good version again, all at once.",
        "danger",
    ),
}

_WITH_REASON: Final = frozenset({"deny", "cancel", "abort", "rollback"})


def summary(db: Connection, rollout: Rollout) -> dict[str, Any]:
    """Return a rollout with, for each wave, how many devices are where."""
    counted = progress.counts(db, rollout.number)
    shown = {**rollout.to_json(), "waves": []}
    for i, wave in enumerate(rollout.waves):
        of = counted.get(i, {})
        shown["waves"].append(
            {
                "number": i + 1,
                "name": wave.name or ("canary" if i == 0 and len(rollout.waves) > 1 else f"wave {i + 1}"),
                "state": wave.state.value,
                "reason": wave.reason,
                "kind": wave.kind,
                "query": wave.query,
                "devices": list(wave.devices[:_SHOWN_NAMES]),
                "total": len(wave.devices),
                "done": of.get("succeeded", 0),
                "failed": of.get("failed", 0) + of.get("regressed", 0),
                "buckets": of,
            }
        )
    return shown


def _allowed(rollout: Rollout) -> list[dict[str, str]]:
    """Return the buttons that its state accepts."""
    accepted = ROLLOUT[rollout.state]
    # Pausing twice is no fault and no button. While a cancel is a handshake, aborting at once is the command line's.
    hidden = {"PAUSED": ("pause", "abort"), "RUNNING": ("abort",), "APPROVED": ("release",)}.get(
        rollout.state.value, ()
    )
    return [
        {"verb": verb, "word": word, "danger": danger}
        for verb, (event, word, _, danger) in _VERBS.items()
        if event in accepted and verb not in hidden
    ]


def _whole(db: Connection, name: str, wave: int, bucket: str, page: int) -> dict[str, Any] | None:
    rollout = tables.rollout(db, name)
    if rollout is None:
        return None
    shown = summary(db, rollout)
    verdicts = evidence.history(db, rollout.number)
    for i, one in enumerate(shown["waves"]):
        mine = [v for v in verdicts if v["wave"] == i]
        one["verdict"] = _with_bars(mine[-1]) if mine else None
        one["looks"] = len(mine)
        one["groups"] = _groups(db, rollout, one, bucket if wave == i + 1 else "", page)
    return {"rollout": shown, "buttons": _allowed(rollout), "bucket_words": _BUCKET_WORDS}


def _with_bars(verdict: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = views.plain(verdict)
    for row in shown["evidence"]:
        row["bar"] = interval_bar(row.get("estimate"), row.get("low"), row.get("high"))
    return shown


def _groups(db: Connection, rollout: Rollout, wave: dict[str, Any], chosen: str, page: int) -> list[dict[str, Any]]:
    """Return a wave's executions by bucket: those that need a look are open, those that succeeded are counted."""
    found = []
    for bucket in progress.BUCKETS:
        count = wave["buckets"].get(bucket, 0)
        is_open = bucket == chosen or (not chosen and (bucket != "succeeded" or wave["total"] <= _SHOWN_NAMES))
        if not count:
            continue
        at = max(1, page) if bucket == chosen else 1
        listed = progress.executions(
            db, rollout.number, wave["number"] - 1, bucket, limit=_SHOWN, offset=(at - 1) * _SHOWN
        )
        pages = -(-count // _SHOWN)
        rows = [views.plain(one.to_json()) for one in listed] if is_open else []
        found.append({"bucket": bucket, "count": count, "rows": rows, "page": at, "pages": pages, "open": is_open})
    return found


def rollout_pages(binder: Binder) -> None:
    """Add the list, the page of one, and its buttons."""
    _look(binder)
    _change(binder)


def _look(binder: Binder) -> None:
    store = binder.operations.store

    @binder.router.get("/rollouts")
    def rollouts(request: Request, page: int = 1) -> Response:
        at = max(1, min(page, 10_000))

        def read(db: Connection) -> list[dict[str, Any]]:
            return [summary(db, one) for one in progress.newest(db, _LIST + 1, (at - 1) * _LIST)]

        found = views.plain(store.read(read))
        more = len(found) > _LIST
        return binder.page(request, "rollouts.html", page="rollouts", rollouts=found[:_LIST], at=at, more=more)

    @binder.router.get("/rollouts/{name}")
    def rollout(request: Request, name: str, wave: int = 0, bucket: str = "", page: int = 1) -> Response:
        found = store.read(lambda db: _whole(db, name, wave, bucket, min(page, 10_000)))
        if found is None:
            raise not_found(f"rollout {name!r}")
        found["rollout"]["waves"] = [_plain_wave(one) for one in found["rollout"]["waves"]]
        found["rollout"]["limits"] = views.plain(found["rollout"]["limits"])
        found["pace"] = pace_words(found["rollout"]["limits"])
        return binder.page(request, "rollout.html", page="rollouts", **found)


def _plain_wave(wave: dict[str, Any]) -> dict[str, Any]:
    return {key: value if key in ("verdict", "groups") else views.plain(value) for key, value in wave.items()}


def _change(binder: Binder) -> None:
    operations, operator = binder.operations, binder.access.operator

    def known(name: str, verb: str) -> Rollout:
        found = operations.store.read(lambda db: tables.rollout(db, name))
        if found is None or verb not in _VERBS:
            raise not_found(f"rollout {name!r}" if verb in _VERBS else f"page {verb!r}")
        return found

    @binder.router.get("/rollouts/{name}/{verb}")
    async def ask(request: Request, actor: Annotated[str, operator], name: str, verb: str) -> Response:
        rollout = await run_in_threadpool(known, name, verb)
        _, word, text, danger = _VERBS[verb]
        title = f"{word} rollout {rollout.id} of {rollout.model} {rollout.version}"
        where = f"/rollouts/{name}"
        return await binder.ask(
            request, page="rollouts", title=title, text=text, button=f"{word} the rollout", action=f"{where}/{verb}",
            back=where, danger=bool(danger), reason=verb in _WITH_REASON,
        )  # fmt: skip

    @binder.router.post("/rollouts/{name}/{verb}")
    async def do(
        actor: Annotated[str, operator], name: str, verb: str, form: Annotated[dict[str, str], posted]
    ) -> Response:
        await run_in_threadpool(known, name, verb)
        reason = form.get("reason", "").strip()[:300]
        await run_in_threadpool(operations.rollouts.change, name, verb, actor, reason)
        return see(f"/rollouts/{name}")
