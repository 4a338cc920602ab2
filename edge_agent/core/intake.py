# SPDX-License-Identifier: Apache-2.0
"""A genuine order at a model's lane: taken up, repeated, refused, superseded or cancelled."""

from dataclasses import replace

from edge_agent.core import update
from edge_agent.core.effects import Effect, Note, Report
from edge_agent.core.events import Instant
from edge_agent.core.lane import Lane
from edge_contract.jobs import JobDocument
from edge_contract.states import EXECUTION, PhaseEvent

__all__ = ["cancel", "install"]

Outcome = tuple[Lane, list[Effect]]


def install(lane: Lane, job: JobDocument, envelope: str, at: Instant) -> tuple[Lane, list[Effect], bool]:
    """Take an order up, or say why not.

    Returns:
        The lane, what to do, and False if the order has to wait for the end of another one.
    """
    memory = lane.update
    if memory.execution is None and memory.finished is not None and memory.finished.job_id == job.job_id:
        return lane, [Report(again=True)], True
    if memory.execution is not None and memory.execution.job.job_id == job.job_id:
        return lane, [], True
    if job.job_id <= memory.last_job:
        return lane, [Note("event", {"kind": "old_order", "job_id": job.job_id, "newest": memory.last_job})], True
    reason = _unfit(lane, job, at)
    if memory.execution is not None:
        return (lane, [], False) if reason else (*_supersede(lane, job, at), False)
    if reason:
        changed, effects = update.refuse(memory, job, envelope, reason, at)
        return replace(lane, update=changed), effects, True
    changed, effects = update.accept(memory, job, envelope, at)
    # What the runner refused of this bundle before is forgotten: the server asks anew.
    taken = replace(lane, update=changed, model=job.model, runner=lane.runner.forgive(job.bundle))
    return taken, effects, True


def _unfit(lane: Lane, job: JobDocument, at: Instant) -> str:
    """Return why this device cannot take the order up, or nothing."""
    if job.device != lane.me.device:
        return f"the order is for device '{job.device}'"
    if lane.model and job.model != lane.model:
        return f"this device runs model '{lane.model}', not '{job.model}'"
    if at.wall >= job.expires_at:
        return f"the order expired {at.wall - job.expires_at:.0f} s ago"
    if len(job.bundle) != 64 or set(job.bundle) - set("0123456789abcdef"):
        return f"'{job.bundle[:70]}' is not a bundle id"
    return ""


def _supersede(lane: Lane, job: JobDocument, at: Instant) -> Outcome:
    """A newer order: leave the older one if the pointer has not moved, else wait for its end.

    The envelope stays on its desk; it is checked again when the way is free (``orders.recheck``).
    """
    execution = lane.update.execution
    assert execution is not None
    if PhaseEvent.CANCEL not in EXECUTION[execution.phase]:
        return lane, []
    changed, effects = update.supersede(lane.update, lane.slots, at, job.job_id)
    return replace(lane, update=changed), effects


def cancel(lane: Lane, job: JobDocument, at: Instant) -> Outcome:
    """Cancel the order that the document names: by its id, or, with an id of its own, by rollout and bundle."""
    execution = lane.update.execution
    if execution is None:
        return lane, [Report(again=True)]
    theirs = execution.job
    same_work = (job.rollout, job.bundle) == (theirs.rollout, theirs.bundle) and job.job_id > theirs.job_id
    if job.job_id != theirs.job_id and not same_work:
        return lane, []
    if PhaseEvent.CANCEL not in EXECUTION[execution.phase]:
        body = {"kind": "cancel_refused", "job_id": theirs.job_id, "phase": execution.phase.value}
        return lane, [Note("event", body)]
    changed, effects = update.advance(lane.update, PhaseEvent.CANCEL, lane.slots, at, "cancelled by the operator")
    return replace(lane, update=changed), effects
