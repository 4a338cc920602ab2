# SPDX-License-Identifier: Apache-2.0
"""What is asked about rollouts: plan, start, approve, pause, stop, take back, try again; and the engine's step."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import RolloutError, UsageError
from edge_contract.messages import SOFTWARE
from edge_contract.states import RolloutState
from fleet.adapters import channels, rollout_tables, tables
from fleet.adapters.database import Connection
from fleet.adapters.desk import Desk, known_rollout
from fleet.adapters.fleet_query import matching
from fleet.adapters.hearing import give_time
from fleet.adapters.order_messages import Message
from fleet.adapters.rollbacks import next_number
from fleet.adapters.rollout_world import absent
from fleet.core import changes
from fleet.core.approval import ApprovalRules
from fleet.core.rollback import retry_rollout
from fleet.core.rollout import LIVE, UNDER_WAY, Request, Rollout, build_waves, read_plan
from fleet.core.tally import bucket_of
from fleet.core.waves import SHADOW

__all__ = ["VERBS", "RolloutVerbs"]

RULES_NAME: Final = "rollouts.toml"

_CHANGES: Final[Mapping[str, Callable[[Rollout, str, str, float], Rollout]]] = {
    "release": lambda r, _actor, _reason, _now: changes.release(r),
    "approve": lambda r, actor, _reason, _now: changes.approve(r, actor),
    "deny": changes.deny,
    "pause": lambda r, _actor, _reason, _now: changes.pause(r),
    "resume": lambda r, _actor, _reason, now: changes.resume(r, now),
    "advance": lambda r, _actor, _reason, _now: changes.advance_wave(r),
    "skip": lambda r, _actor, _reason, _now: changes.skip_wave(r),
    "cancel": lambda r, actor, reason, now: changes.cancel(r, _words("cancelled", actor, reason), now),
    "abort": lambda r, actor, reason, now: changes.abort(r, _words("stopped", actor, reason), now),
    "rollback": lambda r, actor, reason, now: changes.roll_back(r, _words("rolled back", actor, reason), now),
}

VERBS: Final = (*_CHANGES, "retry")
"""What ``change`` understands."""


def _words(done: str, actor: str, reason: str) -> str:
    return f"{done} by {actor}{f': {reason}' if reason else ''}"


class RolloutVerbs:
    """Verbs on rollouts; each is one transaction with its audit entry."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def tick(self) -> None:
        """Let the engine take every rollout one step on."""
        now = self._desk.clock()
        self._desk.do(lambda db: (None, self._desk.book.tick(db, now)))

    def republish(self) -> None:
        """Publish every retained message again, after the broker may have lost them. Does not wait.

        Nobody could be heard until now, so orders whose time is over get some more.
        """
        now = self._desk.clock()
        self._desk.store.submit(lambda db: give_time(db, now))
        self._desk.store.submit(self._desk.book.retained, then=lambda done: self._desk.send(done.result()))

    def rules(self) -> ApprovalRules:
        """Return when a rollout needs a second person; raises RolloutError where the file cannot be read."""
        path: Path = self._desk.trust.ca.parent / RULES_NAME
        try:
            return ApprovalRules.from_toml(path.read_text(encoding="utf-8"), str(path))
        except FileNotFoundError:
            return ApprovalRules()
        except (OSError, UnicodeDecodeError) as error:
            raise RolloutError(f"cannot be read: {error}", where=str(path)) from error

    def plan(self, document: Any, actor: str) -> dict[str, Any]:
        """Return what ``start`` would do: the waves with their devices, and whether somebody has to approve it.

        ``refused`` says why the rules of the plan's channel are not met now; they are asked again at the end.

        Raises:
            RolloutError: As ``start``.
        """
        request, rules, now = read_plan(document), self.rules(), self._desk.clock()

        def read(db: Connection) -> dict[str, Any]:
            rollout = self._planned(db, request, rules, actor, now)
            gone = absent(db, rollout, now)
            names = {device for wave in rollout.waves for device in wave.devices}
            document = rollout.to_json()
            return {
                **{
                    key: document[key]
                    for key in ("model", "version", "bundle", "waves", "limits", "channel", "dynamic")
                },
                "needs_approval": rollout.needs_approval,
                "refused": self._refused(db, rollout),
                "devices": len(names),
                "absent": {device: gone[device] for device in sorted(names) if device in gone},
            }

        return self._desk.store.read(read)

    def _refused(self, db: Connection, rollout: Rollout) -> str:
        version = tables.model(db, rollout.bundle)
        return self._desk.book.refusal(db, version, rollout.channel) if version and rollout.channel else ""

    def start(self, document: Any, actor: str) -> Rollout:
        """Plan a rollout; unless it is a draft or waits for approval, it takes its first step.

        Raises:
            RolloutError: A malformed request, an unknown model, bundle or device.
        """
        request, rules, now = read_plan(document), self.rules(), self._desk.clock()

        def job(db: Connection) -> tuple[Rollout, list[Message]]:
            rollout = self._planned(db, request, rules, actor, now)
            if not request.is_draft:
                rollout = changes.release(rollout)
            tables.put_rollout(db, rollout)
            detail = {
                "model": rollout.model,
                "version": rollout.version,
                "bundle": rollout.bundle,
                "waves": [len(wave.devices) for wave in rollout.waves],
                "state": rollout.state.value,
            }
            self._desk.audit(db, actor, "rollout.start", rollout.id, detail)
            return self._moved(db, rollout, now)

        started = self._desk.do(job)
        self._desk.on_release()
        return started

    def change(self, rollout_id: str, verb: str, actor: str, reason: str = "") -> Rollout:
        """Change a rollout by one of ``VERBS``; pausing a paused one changes nothing.

        Raises:
            RolloutError: It is not known, its state does not accept the verb, or its author may not approve it.
            UsageError: Another verb.
        """
        if verb not in VERBS:
            raise UsageError(f"unknown verb '{verb}'", where=f"rollout {rollout_id}", fix=f"use {', '.join(VERBS)}")
        now = self._desk.clock()

        def job(db: Connection) -> tuple[Rollout, list[Message]]:
            rollout = known_rollout(db, rollout_id)
            if verb == "retry":
                return self._retry(db, rollout, actor, now)
            changed = _CHANGES[verb](rollout, actor, reason, now)
            if changed != rollout:
                tables.put_rollout(db, changed)
                detail = {"state": changed.state.value, **({"reason": reason} if reason else {})}
                self._desk.audit(db, actor, f"rollout.{verb}", rollout_id, detail)
            return self._moved(db, changed, now, was=rollout.state)

        return self._desk.do(job)

    def _planned(self, db: Connection, request: Request, rules: ApprovalRules, actor: str, now: float) -> Rollout:
        version = tables.model(db, request.bundle)
        if version is None or version.model != request.model:
            what = f"bundle {request.bundle[:12]} of model '{request.model}' is not registered"
            raise RolloutError(what, where="rollout", fix="strop fleet model list")
        channels.check_offered(db, version, request.channel)
        devices = [row["device"] for row in db.execute("SELECT device FROM devices ORDER BY device")]
        waves = build_waves(request.waves, devices, lambda query: matching(db, query, now))
        if request.model == SOFTWARE and any(wave.kind == SHADOW for wave in waves):
            raise RolloutError("an agent's software has no shadow", where="rollout.waves", fix="leave the wave out")
        number, names = next_number(db), {device for wave in waves for device in wave.devices}
        return Rollout(
            f"r{number}",
            number,
            request.model,
            version.version,
            request.bundle,
            request.limits,
            waves,
            now,
            created_by=actor,
            needs_approval=request.needs_approval or rules.ask(request.model, names),
            dynamic=request.dynamic,
            channel=request.channel,
        )

    def _moved(
        self, db: Connection, rollout: Rollout, now: float, was: RolloutState | None = None
    ) -> tuple[Rollout, list[Message]]:
        """Let the engine follow a change at once."""
        book, messages = self._desk.book, list[Message]()
        if was is not None and was is not rollout.state:
            messages += book.entered(db, rollout, now)
            rollout = known_rollout(db, rollout.id)
        if rollout.state in UNDER_WAY or was in UNDER_WAY:
            messages += book.advance(db, rollout, now)
        return known_rollout(db, rollout.id), [*messages, *book.tick(db, now)]

    def _retry(self, db: Connection, rollout: Rollout, actor: str, now: float) -> tuple[Rollout, list[Message]]:
        """Failed devices get a further attempt: in a live rollout at once, of an ended one by a new rollout."""
        failed = [e for e in tables.executions(db, rollout.number).values() if bucket_of(e) == "failed"]
        if not failed:
            fix = f"strop fleet rollout show {rollout.id}"
            raise RolloutError("no device failed", where=f"rollout {rollout.id}", fix=fix)
        self._desk.audit(db, actor, "rollout.retry", rollout.id, {"devices": len(failed)})
        if rollout.state in LIVE:
            rollout_tables.put(db, [replace(e, retry_at=now) for e in failed], is_seen=False)
            return self._moved(db, rollout, now)
        if rollout.state in UNDER_WAY:
            raise RolloutError(f"it is {rollout.state.value}", where=f"rollout {rollout.id}", fix="wait for its end")
        names = sorted(e.device for e in failed)
        again = retry_rollout(next_number(db), rollout, names, actor=actor, now=now)
        tables.put_rollout(db, again)
        return self._moved(db, again, now)
