# SPDX-License-Identifier: Apache-2.0
"""What is asked about rollouts: start, pause, resume, abort; and the engine's step."""

from typing import Any

from edge_contract.errors import RolloutError, UsageError
from edge_contract.states import RolloutEvent
from fleet.adapters import tables
from fleet.adapters.database import Connection
from fleet.adapters.desk import Desk, known_rollout
from fleet.adapters.orders import Message
from fleet.core.engine import abort
from fleet.core.rollout import Rollout, new_rollout, plan_waves, read_request

__all__ = ["RolloutVerbs"]


class RolloutVerbs:
    """Verbs on rollouts; each is one transaction with its audit entry."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def tick(self) -> None:
        """Let the engine take every rollout one step on."""
        now = self._desk.clock()
        self._desk.do(lambda db: (None, self._desk.book.tick(db, now)))

    def republish(self) -> None:
        """Publish every retained message again, after the broker may have lost them. Does not wait."""
        self._desk.store.submit(self._desk.book.retained, then=lambda done: self._desk.send(done.result()))

    def start(self, document: Any, actor: str) -> Rollout:
        """Plan a rollout and take its first step.

        Raises:
            RolloutError: A malformed request, an unknown model, bundle or device.
        """
        model, bundle, specs, limits = read_request(document)
        now = self._desk.clock()

        def job(db: Connection) -> tuple[Rollout, list[Message]]:
            version = tables.model(db, bundle)
            if version is None or version.model != model:
                fix = "strop fleet model list"
                raise RolloutError(
                    f"bundle {bundle[:12]} of model '{model}' is not registered", where="rollout", fix=fix
                )
            waves = plan_waves(specs, [record.device for record in tables.devices(db)])
            number = 1 + max((r.number for r in tables.rollouts(db)), default=0)
            rollout = new_rollout(number, (model, version.version, bundle), waves, limits, now=now)
            tables.put_rollout(db, rollout)
            detail = {"model": model, "version": version.version, "bundle": bundle, "waves": [list(w) for w in waves]}
            self._desk.audit(db, actor, "rollout.start", rollout.id, detail)
            messages = self._desk.book.advance(db, rollout, now)
            return known_rollout(db, rollout.id), [*messages, *self._desk.book.tick(db, now)]

        started = self._desk.do(job)
        self._desk.on_release()
        return started

    def change(self, rollout_id: str, verb: str, actor: str) -> Rollout:
        """Pause, resume or abort a rollout; pausing a paused one changes nothing.

        Raises:
            RolloutError: It is not known, or its state does not accept the verb.
            UsageError: Another verb.
        """
        now = self._desk.clock()

        def job(db: Connection) -> tuple[Rollout, list[Message]]:
            rollout = known_rollout(db, rollout_id)
            if verb == "abort":
                changed = abort(rollout, f"stopped by {actor}", now)
            elif verb in ("pause", "resume"):
                changed = rollout.after(RolloutEvent(verb))
            else:
                raise UsageError(
                    f"unknown verb '{verb}'", where=f"rollout {rollout_id}", fix="use pause, resume, abort"
                )
            if changed != rollout:
                tables.put_rollout(db, changed)
                self._desk.audit(db, actor, f"rollout.{verb}", rollout_id, {"state": changed.state.value})
            messages = self._desk.book.advance(db, changed, now)
            return known_rollout(db, rollout_id), messages

        return self._desk.do(job)
