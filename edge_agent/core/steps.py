# SPDX-License-Identifier: Apache-2.0
"""The slow steps of a lane's order: their progress, their ends, what is tried again and what ran out of time."""

from dataclasses import replace

from edge_agent.core import update, waiting
from edge_agent.core.effects import Effect, Note, Report, RunStep
from edge_agent.core.events import Flipped, Instant, Progress, StepDone, StepFailed
from edge_agent.core.execution import retry_s
from edge_agent.core.lane import Lane
from edge_contract.deltas import EVENT
from edge_contract.states import Phase, PhaseEvent

__all__ = ["expire", "flipped", "progressed", "retry", "step_done", "step_failed"]

Outcome = tuple[Lane, list[Effect]]

_FAILS = {
    "preflight": PhaseEvent.PREFLIGHT_FAILED,
    "download": PhaseEvent.DOWNLOAD_FAILED,
    "verify": PhaseEvent.VERIFY_FAILED,
}
_ENDS = {"preflight": PhaseEvent.PREFLIGHT_OK, "download": PhaseEvent.DOWNLOADED}


def _is_ours(lane: Lane, event: StepDone | StepFailed | Progress, step: str = "") -> bool:
    """True if the event belongs to the order and the phase under way; late ones from before are dropped."""
    execution = lane.update.execution
    if execution is None or execution.job.job_id != event.job_id:
        return False
    return not step or any(isinstance(e, RunStep) and e.step == step for e in update.enter(lane.update, lane.slots))


def progressed(lane: Lane, event: Progress) -> Outcome:
    """Bytes are safe on disk: say so; the pace is the downloader's."""
    if not _is_ours(lane, event):
        return lane, []
    changed = lane.update.trying(done=event.done, total=event.total, minor=lane.update.attempt.minor + 1, retries=0)
    lane = replace(lane, update=changed)
    return lane, [Report()]


def step_done(lane: Lane, event: StepDone) -> Outcome:
    """A slow step ended well."""
    if not _is_ours(lane, event, event.step):
        return lane, []
    slots = event.slots or lane.slots
    lane = replace(lane, slots=slots, update=lane.update.trying(is_done=True, need_kb=event.need_kb))
    if event.step not in _ENDS:
        return lane, []  # ``update.fact`` looks at what else must be true
    lane, told = _fetched(lane, event)
    changed, effects = update.advance(lane.update, _ENDS[event.step], slots, event.at)
    return replace(lane, update=changed), [*told, *effects]


def _fetched(lane: Lane, event: StepDone) -> Outcome:
    """What a download cost goes into the order's report, and how each file came into an event."""
    execution = lane.update.execution
    if execution is None or not event.fetched:
        return lane, []
    told = {key: event.fetched[key] for key in ("fetched", "full", "codecs", "delta_failed")}
    figures = {**execution.figures, **told}
    lane = replace(lane, update=replace(lane.update, execution=replace(execution, figures=figures)))
    return lane, [Note("event", {"kind": EVENT, "bundle": execution.job.bundle, **event.fetched})]


def step_failed(lane: Lane, event: StepFailed) -> Outcome:
    """A slow step failed: again later if the cause may pass, else the order ends."""
    if not _is_ours(lane, event, event.step):
        return lane, []
    if event.may_retry and not waiting.may_go_on(lane, event.at):
        return replace(lane, update=lane.update.trying(is_held=True)), []
    if event.may_retry or event.step not in _FAILS:
        retries = lane.update.attempt.retries + 1
        changed = lane.update.trying(retries=retries, retry_at=event.at.mono + retry_s(retries))
        first: list[Effect] = [Note("event", {"kind": "step_failed", "step": event.step, "reason": event.reason[:300]})]
        return replace(lane, update=changed), first if retries == 1 else []
    changed, effects = update.advance(lane.update, _FAILS[event.step], lane.slots, event.at, event.reason)
    return replace(lane, update=changed), effects


def retry(lane: Lane, at: Instant, *, now: bool = False) -> Outcome:
    """Run again what failed and is due; ``now`` when the network came back."""
    effects: list[Effect] = []
    due = lane.update.attempt.retry_at
    if lane.update.execution is not None and due is not None and (now or at.mono >= due):
        effects += update.enter(lane.update, lane.slots)
        lane = replace(lane, update=lane.update.trying(retry_at=None))
    return lane, effects


def expire(lane: Lane, at: Instant) -> Outcome:
    """End an order whose time is over, if its phase can be left."""
    if not update.deadline_passed(lane.update, at):
        return lane, []
    execution = lane.update.execution
    assert execution is not None
    waited = f": {lane.update.attempt.wait.text}" if lane.update.attempt.wait else ""
    reason = f"not done within {execution.job.timeout_s:g} s, in phase {execution.phase.value}{waited}"
    changed, effects = update.advance(lane.update, PhaseEvent.DEADLINE, lane.slots, at, reason)
    return replace(lane, update=changed), effects


def flipped(lane: Lane, event: Flipped) -> Outcome:
    """The pointers were written, or not: then the phase tries again."""
    lane = replace(lane, slots=event.slots)
    execution = lane.update.execution
    targets = {}
    if execution is not None:
        targets = {Phase.ACTIVATING: execution.job.bundle, Phase.ROLLING_BACK: execution.previous}
    if not event.reason:
        is_done = execution is not None and targets.get(execution.phase) == event.slots.active
        return replace(lane, update=lane.update.trying(is_done=is_done)) if is_done else lane, []
    note = Note("alarm", {"kind": "slots", "reason": event.reason[:300]})
    if execution is None or execution.phase not in targets:
        return lane, [note]
    retries = lane.update.attempt.retries + 1
    tried = lane.update.trying(retries=retries, retry_at=event.at.mono + retry_s(retries))
    return replace(lane, update=tried), [note] if retries == 1 else []
