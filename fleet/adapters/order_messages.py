# SPDX-License-Identifier: Apache-2.0
"""What the server says to devices about their orders: desired state, signed documents, and on which channels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from edge_contract.jobs import JobDocument, Probation
from edge_contract.messages import SOFTWARE, SOFTWARE_ORDERS
from edge_contract.topics import topic
from fleet.adapters import tables
from fleet.adapters.database import Connection
from fleet.adapters.job_signing import JobSigner
from fleet.core.execution import Execution
from fleet.core.inventory import want
from fleet.core.limits import Limits
from fleet.core.rollout import Rollout

__all__ = ["Message", "OrderMessages"]

_PROBATIONS: Final[Mapping[str, Callable[[Limits], Probation]]] = {
    "install": lambda limits: limits.probation,
    "shadow": lambda limits: limits.shadow,
}


@dataclass(frozen=True)
class Message:
    """One message to publish after the commit."""

    topic: str
    payload: bytes
    retain: bool = True


class OrderMessages:
    """Keeps what is wanted of devices and what is ordered, inside a transaction; returns what to publish.

    Args:
        tenant: First level of the topics.
        signer: Signs job documents.
    """

    def __init__(self, tenant: str, signer: JobSigner) -> None:
        self._tenant, self._signer = tenant, signer

    def desire(
        self,
        db: Connection,
        device: str,
        *,
        models: dict[str, str] | None = None,
        config: dict[str, object] | None = None,
    ) -> list[Message]:
        """Change what is wanted of a device; nothing to publish where nothing changes."""
        before = tables.desired(db, device)
        if before is None:
            return []
        desired = want(before, models=models, config=config)
        if desired == before:
            return []
        tables.put_desired(db, device, desired)
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
        return ["job/next", *(_channel(model) for _, model in tables.orders(db, device) if model)]

    def _message(self, device: str, model: str, envelope: bytes) -> Message:
        return Message(topic(self._tenant, device, _channel(model)), envelope)

    def issue(self, db: Connection, rollout: Rollout, execution: Execution, now: float) -> list[Message]:
        """Want the bundle of an execution, and order it."""
        wanted: list[Message] = []
        if execution.kind == "install":
            wanted = self.desire(db, execution.device, models={execution.model: execution.bundle})
        return [*wanted, *self.order(db, rollout, execution, execution.kind, now)]

    def close(
        self,
        db: Connection,
        rollout: Rollout,
        execution: Execution,
        restore: str | None,
        now: float,
        *,
        ask_cancel: bool,
    ) -> list[Message]:
        """Take the order of an execution back that has ended, and want again what the device is to run."""
        messages = []
        if restore is not None:
            messages = self.desire(db, execution.device, models={execution.model: restore})
        if execution.issued_at and tables.desired(db, execution.device) is not None:  # it may have left the fleet
            messages += self.order(db, rollout, execution, "cancel" if ask_cancel else "none", now)
        return messages

    def order(self, db: Connection, rollout: Rollout, execution: Execution, kind: str, now: float) -> list[Message]:
        """Put a signed document of an execution onto its device's channels."""
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
            probation=_PROBATIONS[kind](limits) if kind in _PROBATIONS else Probation(),
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
        if model == SOFTWARE:
            tables.put_order(db, device, job, envelope, model)
            return [self._message(device, model, envelope)]
        if record is not None and record.has_lanes:
            tables.put_order(db, device, job, envelope, model)
            messages.append(self._message(device, model, envelope))
        is_only = record is None or not record.has_lanes or set(record.running) <= {model, SOFTWARE}
        if is_only or (device, "") in standing:
            tables.put_order(db, device, job, envelope if is_only else b"")
            messages.append(self._message(device, "", envelope if is_only else b""))
        return messages


def _channel(model: str) -> str:
    """Return where orders for a model stand; the agent's own software has a channel that older agents do not know."""
    if model == SOFTWARE:
        return SOFTWARE_ORDERS
    return f"job/next/{model}" if model else "job/next"
