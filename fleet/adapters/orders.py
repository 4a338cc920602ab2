# SPDX-License-Identifier: Apache-2.0
"""Rollouts in the database: one transaction per step, and the messages that follow from its commit."""

from dataclasses import replace

from edge_contract.states import RolloutState, Status
from fleet.adapters import rollout_tables, tables
from fleet.adapters.database import Connection
from fleet.adapters.evidence import WaveJudge
from fleet.adapters.job_signing import JobSigner
from fleet.adapters.order_messages import Message, OrderMessages
from fleet.adapters.rollbacks import plan_rollbacks
from fleet.adapters.rollout_ends import Refusal, has_ended, joining
from fleet.adapters.rollout_world import read_world
from fleet.core.changes import join
from fleet.core.engine import advance
from fleet.core.rollout import LIVE, UNDER_WAY, Rollout
from fleet.core.world import Action, AskCancel, CloseOrder, Issue, Outcome, World

__all__ = ["Message", "OrderBook"]

_JOIN_S = 10.0
"""How often a dynamic rollout asks who matches now."""

_PAUSE_S = 0.9
"""Where no execution moved and the last step did nothing, only the clock can: it is looked at so often. Every message
of a device wakes the engine, so a step that finds nothing has to cost next to nothing."""

_CALM = frozenset({RolloutState.SCHEDULED, RolloutState.RUNNING, RolloutState.PAUSED})


class OrderBook(OrderMessages):
    """Moves rollouts on inside a transaction.

    Args:
        tenant: First level of the topics.
        signer: Signs job documents.
    """

    def __init__(self, tenant: str, signer: JobSigner) -> None:
        super().__init__(tenant, signer)
        self.refusal: Refusal = lambda _db, _version, _channel: ""
        """What the promotion rules say when a rollout's plan names a channel."""
        self._judge, self._is_adopted = WaveJudge(), False
        self._joined, self._calm_since = dict[int, float](), dict[int, float]()

    def tick(self, db: Connection, now: float) -> list[Message]:
        """Advance every rollout that is under way or still has open executions, the newest first."""
        if not self._is_adopted:
            self._adopt(db)
        moved, messages = rollout_tables.numbers_to_move(db, now), list[Message]()
        states = rollout_tables.under_way(db)
        for number in sorted(moved | states.keys(), reverse=True):
            is_calm = number not in moved and states.get(number) in _CALM
            if is_calm and 0 <= now - self._calm_since.get(number, -_PAUSE_S) < _PAUSE_S:
                continue
            rollout = tables.rollout(db, f"r{number}")
            found = self.advance(db, rollout, now) if rollout is not None else []
            self._calm_since[number] = -_PAUSE_S if found else now
            messages += found
        return messages

    def advance(self, db: Connection, rollout: Rollout, now: float) -> list[Message]:
        """Advance one rollout, store what changed, and return what to publish."""
        messages: list[Message] = []
        rollout = self._with_joined(db, rollout, now)
        while True:
            loaded = rollout_tables.loaded(db, rollout, now)
            world = read_world(db, rollout, now, self._judge, loaded)
            outcome = advance(world, now)
            messages += self._kept(db, world, outcome, loaded.moved, now)
            if outcome.rollout.state is rollout.state:
                return messages
            messages += self.entered(db, outcome.rollout, now)
            rollout = tables.rollout(db, rollout.id) or outcome.rollout

    def _adopt(self, db: Connection) -> None:
        """Take over a database of an earlier version, once."""
        rollout_tables.adopt(db)
        if db.execute("SELECT device FROM running LIMIT 1").fetchone() is None:
            for record in tables.devices(db):
                rollout_tables.note_running(db, record.device, record.running)
        self._is_adopted = True

    def _with_joined(self, db: Connection, rollout: Rollout, now: float) -> Rollout:
        if not rollout.dynamic or rollout.state not in LIVE:
            return rollout
        if 0 <= now - self._joined.get(rollout.number, -_JOIN_S) < _JOIN_S:
            return rollout
        self._joined[rollout.number] = now
        joined = join(rollout, joining(db, rollout, now))
        if joined != rollout:
            tables.put_rollout(db, joined)
        return joined

    def _kept(self, db: Connection, world: World, outcome: Outcome, moved: frozenset[str], now: float) -> list[Message]:
        before, after = world.rollout, outcome.rollout
        if after != before:
            tables.put_rollout(db, after)
            _note(db, before, after, now)
        changed = {execution.job_id for execution in outcome.changed}
        looked_at = [e for e in outcome.executions.values() if e.job_id in moved - changed and e.issued_at]
        rollout_tables.put(db, [*outcome.changed, *looked_at], is_seen=True)
        known = {execution.job_id for execution in world.executions.values()}
        new = [e.device for e in outcome.changed if e.job_id not in known]
        rollout_tables.mark_older(db, after, new)
        messages: list[Message] = []
        for execution in outcome.changed:
            if execution.status is Status.SUCCEEDED and execution.kind == "install" and not execution.past:
                # Also a device that ran it already.
                messages += self.desire(db, execution.device, models={execution.model: execution.bundle})
        for action in outcome.actions:
            messages += self._said(db, after, action, now)
        return messages

    def _said(self, db: Connection, rollout: Rollout, action: Action, now: float) -> list[Message]:
        match action:
            case Issue(execution):
                return self.issue(db, rollout, execution, now)
            case AskCancel(execution):
                return self.order(db, rollout, execution, "cancel", now)
            case CloseOrder(execution, restore, ask_cancel):
                return self.close(db, rollout, execution, restore, now, ask_cancel=ask_cancel)

    def entered(self, db: Connection, rollout: Rollout, now: float) -> list[Message]:
        """Follow up on a state that a rollout has just entered, and that is stored."""
        messages: list[Message] = []
        # It asks something else of every execution that has not ended.
        rollout_tables.mark_open(db, rollout.number)
        if rollout.state is RolloutState.ROLLING_BACK and rollout.rollbacks is None:
            children = plan_rollbacks(db, rollout, now)
            tables.put_rollout(db, replace(rollout, rollbacks=tuple(child.id for child in children)))
            for child in children:
                messages += self.advance(db, child, now)
        if rollout.state not in UNDER_WAY:
            self._judge.forget(rollout.number)
            has_ended(db, rollout, now, self.refusal)
        return messages


def _note(db: Connection, before: Rollout, after: Rollout, now: float) -> None:
    """The engine's own decisions stand in the audit log beside the operators'."""

    def add(action: str, detail: dict[str, object]) -> None:
        tables.add_audit(db, time=now, actor="engine", action=action, subject=after.id, detail=detail)

    for i, (old, new) in enumerate(zip(before.waves, after.waves, strict=True)):
        if old.state is not new.state:
            add("rollout.wave", {"wave": i + 1, "state": new.state.value, "reason": new.reason})
    if before.state is not after.state:
        add(f"rollout.{after.state.value.lower()}", {"reason": after.reason})
