# SPDX-License-Identifier: Apache-2.0
"""Rollouts in the database: one transaction per step, and the messages that follow from its commit."""

from dataclasses import dataclass, replace

from edge_contract.jobs import JobDocument, Probation
from edge_contract.states import RolloutState, Status
from edge_contract.topics import topic
from fleet.adapters import tables
from fleet.adapters.database import Connection
from fleet.adapters.job_signing import JobSigner
from fleet.core.engine import CloseOrder, Issue, World, advance
from fleet.core.execution import Execution
from fleet.core.inventory import DeviceRecord, want
from fleet.core.rollout import LIVE, Rollout

__all__ = ["Message", "OrderBook"]


@dataclass(frozen=True)
class Message:
    """One message to publish after the commit."""

    topic: str
    payload: bytes
    retain: bool = True


class OrderBook:
    """Moves rollouts on inside a transaction.

    Args:
        tenant: First level of the topics.
        signer: Signs job documents.
    """

    def __init__(self, tenant: str, signer: JobSigner) -> None:
        self._tenant, self._signer = tenant, signer

    def tick(self, db: Connection, now: float) -> list[Message]:
        """Advance every rollout that lives or still has open executions, the newest first."""
        waiting = {execution.number for execution in tables.unclosed_executions(db)}
        moving = [r for r in tables.rollouts(db) if r.state in LIVE or r.number in waiting]
        return [message for rollout in moving for message in self.advance(db, rollout, now)]

    def advance(self, db: Connection, rollout: Rollout, now: float) -> list[Message]:
        """Advance one rollout, store what changed, and return what to publish."""
        records = {record.device: record for record in tables.devices(db)}
        outcome = advance(self._world(db, rollout, records), now)
        if outcome.rollout != rollout:
            tables.put_rollout(db, outcome.rollout)
            _note(db, rollout, outcome.rollout, now)
        tables.put_executions(db, outcome.changed)
        messages: list[Message] = []
        for execution in outcome.changed:
            if execution.status is Status.SUCCEEDED:  # also a device that ran it already
                messages += self.desire(db, execution.device, models={execution.model: execution.bundle})
        for action in outcome.actions:
            match action:
                case Issue(execution):
                    messages += self._issue(db, outcome.rollout, execution, now)
                case CloseOrder(execution, restore, ask_cancel):
                    messages += self._close(db, outcome.rollout, execution, restore, now, ask_cancel=ask_cancel)
        return messages

    def desire(
        self,
        db: Connection,
        device: str,
        *,
        models: dict[str, str] | None = None,
        config: dict[str, object] | None = None,
    ) -> list[Message]:
        """Change what is wanted of a device; nothing to publish where nothing changes."""
        record = tables.device(db, device)
        if record is None:
            return []
        desired = want(record.desired, models=models, config=config)
        if desired == record.desired:
            return []
        tables.put_device(db, replace(record, desired=desired))
        return [Message(topic(self._tenant, device, "twin/desired"), desired.to_bytes())]

    def retained(self, db: Connection) -> list[Message]:
        """Return everything that the broker must hold: after its restart it holds nothing."""
        wanted = [
            Message(topic(self._tenant, record.device, "twin/desired"), record.desired.to_bytes())
            for record in tables.devices(db)
        ]
        orders = [self._message(device, model, data) for (device, model), data in tables.orders(db).items()]
        return wanted + orders

    def channels(self, db: Connection, device: str) -> list[str]:
        """Return the channels on which orders of a device may stand."""
        return ["job/next", *(f"job/next/{model}" for _, model in tables.orders(db, device) if model)]

    def _message(self, device: str, model: str, envelope: bytes) -> Message:
        return Message(topic(self._tenant, device, f"job/next/{model}" if model else "job/next"), envelope)

    def _world(self, db: Connection, rollout: Rollout, records: dict[str, DeviceRecord]) -> World:
        model = rollout.model
        others = (e for e in tables.unclosed_executions(db) if e.is_open and e.model != model and e.issued_at)
        one_at_a_time = {device for device, record in records.items() if not record.has_lanes}
        return World(
            rollout,
            executions=tables.executions(db, rollout.number),
            running={device: record.running.get(model, "") for device, record in records.items()},
            newest=tables.newest_numbers(db, model),
            busy=frozenset(e.device for e in others if e.device in one_at_a_time),
            last_job=tables.last_job(db),
        )

    def _issue(self, db: Connection, rollout: Rollout, execution: Execution, now: float) -> list[Message]:
        wanted = self.desire(db, execution.device, models={execution.model: execution.bundle})
        return [*wanted, *self._order(db, rollout, execution, "install", now)]

    def _close(
        self,
        db: Connection,
        rollout: Rollout,
        execution: Execution,
        restore: str | None,
        now: float,
        *,
        ask_cancel: bool,
    ) -> list[Message]:
        messages = []
        if restore is not None:
            messages = self.desire(db, execution.device, models={execution.model: restore})
        if execution.issued_at and tables.device(db, execution.device) is not None:  # it may have left the fleet
            messages += self._order(db, rollout, execution, "cancel" if ask_cancel else "none", now)
        return messages

    def _order(self, db: Connection, rollout: Rollout, execution: Execution, kind: str, now: float) -> list[Message]:
        limits = rollout.limits
        job = JobDocument(
            job_id=execution.job_id,
            device=execution.device,
            rollout=rollout.id,
            kind=kind,
            model=execution.model,
            version=rollout.version,
            bundle=execution.bundle,
            issued_at=now,
            expires_at=now + limits.timeout_s + limits.grace_s,
            timeout_s=limits.timeout_s,
            probation=limits.probation if kind == "install" else Probation(),
        )
        envelope = self._signer.sign(job).to_bytes()
        return self._stand(db, execution, envelope)

    def _stand(self, db: Connection, execution: Execution, envelope: bytes) -> list[Message]:
        """Put an order onto its model's channel, and onto ``job/next`` where one model is all that the device has.

        A device of the version before knows ``job/next`` alone. One with several models would find an order there
        that is not the newest of its model, so there the old channel is cleared.
        """
        device, model, job = execution.device, execution.model, execution.job_id
        record, standing = tables.device(db, device), tables.orders(db, device)
        messages = []
        if record is not None and record.has_lanes:
            tables.put_order(db, device, job, envelope, model)
            messages.append(self._message(device, model, envelope))
        is_only = record is None or not record.has_lanes or set(record.running) <= {model}
        if is_only or (device, "") in standing:
            tables.put_order(db, device, job, envelope if is_only else b"")
            messages.append(self._message(device, "", envelope if is_only else b""))
        return messages


def _note(db: Connection, before: Rollout, after: Rollout, now: float) -> None:
    """The engine's own decisions stand in the audit log beside the operators'."""

    def add(action: str, detail: dict[str, object]) -> None:
        tables.add_audit(db, time=now, actor="engine", action=action, subject=after.id, detail=detail)

    for i, (old, new) in enumerate(zip(before.waves, after.waves, strict=True)):
        if old.state is not new.state:
            add("rollout.wave", {"wave": i + 1, "state": new.state.value, "reason": new.reason})
    if before.state is not after.state and after.state in (RolloutState.COMPLETED, RolloutState.ABORTED):
        add(f"rollout.{after.state.value.lower()}", {"reason": after.reason})
