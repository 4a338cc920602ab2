# SPDX-License-Identifier: Apache-2.0
"""Updates of the agent's own software: the update machine of a model, with other facts.

The order, its journal, its slow steps and its pointers are those of ``core.update``. What is different:

- ``activating`` and ``rolling_back`` are over when this very process is the release that the pointer names. Where it
  is not, the process ends for the launcher (``Restart``), and the next one takes the order up from the journal.
- The trial asks whether the device can still be reached and still infers: the server has acknowledged a row of this
  start, the link is up, and every model is held by its runner. All that for a while without a break.
- The launcher gives a release up that does not stay alive. Then an older one finds here why.

While one moves, models do not, and the other way round: a trial would not know whom to blame.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from edge_agent.core import steps, update
from edge_agent.core.effects import Effect, Forget, Restart, stamp
from edge_agent.core.events import Instant, Software
from edge_agent.core.execution import LOOP_GUARD, POINTER_MAY_HAVE_MOVED, Execution
from edge_agent.core.lane import Lane, Plan
from edge_agent.core.policy import Wait
from edge_agent.core.runner import Runner
from edge_agent.core.state import Launch, State
from edge_contract.batches import TelemetryAck
from edge_contract.messages import SOFTWARE
from edge_contract.states import Phase, PhaseEvent, Status

__all__ = [
    "HOLD_S",
    "acknowledged",
    "begun",
    "fact",
    "in_the_way",
    "is_on_trial",
    "leave",
    "looked",
    "remembered",
    "resumed",
    "ticked",
]

P, E = Phase, PhaseEvent
Outcome = tuple[State, list[Effect]]
Found = tuple[PhaseEvent, str]

HOLD_S: Final = 60.0
"""A new release is good after so long without a fault; a quarter of the trial's time where that is shorter."""
RESTORE_S: Final = 300.0
_GATES: Final = (P.STAGED, P.WAITING_WINDOW)


def begun(state: State, told: Software | None) -> State:
    """Take over what the launcher said; without a launcher there is no lane."""
    if told is None:
        return state
    lane = replace(Lane.planned(state.me, Plan(SOFTWARE, SOFTWARE, "", owns_runner=False)), slots=told.slots)
    return replace(state, software=lane, launch=Launch(told))


def remembered(state: State, memory: Any) -> State:
    """Take over the journal's part; raises as ``Lane.remember``."""
    if state.software is None:
        return replace(state, launch=replace(state.launch, aside=memory))
    return replace(state, software=state.software.remember(memory)) if memory else state


def resumed(state: State, at: Instant) -> Outcome:
    """Take the order up again after the start.

    A release that was given up by the launcher is judged by that (``fact``) and not by the number of starts.
    """
    lane = state.software
    if lane is None:
        return state, []
    execution, finished = lane.update.execution, lane.update.finished
    if execution is None:
        is_late = finished is not None and finished.report.status is Status.TIMED_OUT
        sweep: list[Effect] = [Forget(SOFTWARE, ())] if finished is not None and not is_late else []
        return state, stamp(sweep, SOFTWARE)
    if _given_up(state, execution) and execution.writes + 1 < LOOP_GUARD:
        taken_up = lane.update.trying(since=at.mono, started=at.mono)
        return replace(state, software=replace(lane, update=taken_up)), []
    changed, effects = update.resume(lane.update, lane.slots, at)
    return replace(state, software=replace(lane, update=changed)), stamp(effects, SOFTWARE)


def _told(state: State) -> Software:
    return state.launch.told or Software()


def _given_up(state: State, execution: Execution) -> str:
    """Return why the launcher does not run the ordered release, empty if it does, or did not say."""
    told, bundle = _told(state), execution.job.bundle
    on_trial = execution.phase in (P.ACTIVATING, P.HEALTH_CHECK)
    return told.failed.get(bundle, "") if on_trial and told.running != bundle else ""


def is_on_trial(state: State) -> bool:
    """True while the agent's own software is between the pointer and the end of its order."""
    execution = state.software.update.execution if state.software else None
    return execution is not None and execution.phase in POINTER_MAY_HAVE_MOVED


def in_the_way(state: State, lane: Lane) -> Wait | None:
    """Return which other order has to end before this lane's may be switched on."""
    execution = lane.update.execution
    if execution is None or execution.phase not in _GATES:
        return None
    if lane.plan.key != SOFTWARE:
        return Wait("software", "the agent's own software is being updated") if is_on_trial(state) else None
    busy = [one for one in state.lanes.values() if one.update.phase in POINTER_MAY_HAVE_MOVED]
    return Wait("model", f"model '{busy[0].model}' is being updated") if busy else None


def ticked(state: State, at: Instant) -> Outcome:
    """A second passed: deadlines and retries; settings and conditions are the device's."""
    if state.software is None:
        return state, []
    lane = replace(state.software, settings=state.settings, sample=state.first.sample)
    lane, effects = steps.expire(lane, at)
    lane, more = steps.retry(lane, at)
    return replace(state, software=lane), stamp([*effects, *more], SOFTWARE)


def acknowledged(state: State, ack: TelemetryAck) -> State:
    """The server has committed rows; those of this start prove that it hears this release."""
    is_heard = state.launch.is_heard or ack.boot == state.me.boot
    return state if is_heard == state.launch.is_heard else replace(state, launch=replace(state.launch, is_heard=True))


def _missing(state: State) -> str:
    """Return what a healthy device has and this one has not, for people."""
    if not state.is_connected:
        return "no connection to the broker"
    if not state.launch.is_heard:
        return "the server has acknowledged nothing"
    for lane in state.lanes.values():
        if lane.slots.active and lane.plan.owns_runner and lane.runner.active != lane.slots.active:
            return f"the runner does not hold model '{lane.model}'"
    return ""


def looked(state: State, at: Instant) -> State:
    """Keep in mind since when everything is well."""
    if not is_on_trial(state):
        return state
    launch = state.launch
    since = None if _missing(state) else launch.good_since if launch.good_since is not None else at.mono
    return state if since == launch.good_since else replace(state, launch=replace(launch, good_since=since))


def fact(state: State, at: Instant) -> Found | None:
    """Return the event that the present facts amount to, with its reason, or None."""
    lane = state.software
    execution = lane.update.execution if lane else None
    if lane is None or execution is None:
        return None
    if execution.phase is P.VERIFYING:
        return (E.VERIFIED, "") if lane.update.attempt.is_done else None
    if execution.phase is P.ACTIVATING:
        return _activated(state, lane, execution)
    if execution.phase is P.HEALTH_CHECK:
        return _health(state, lane, execution, at)
    if execution.phase is P.ROLLING_BACK:
        return _restored(state, lane, execution, at)
    if execution.phase is P.COMMITTING and _told(state).running != execution.job.bundle:
        return None  # the power failed at its last start on trial; once it is marked as good it is started again
    return update.fact(lane.update, lane.slots, Runner(), at)


def _activated(state: State, lane: Lane, execution: Execution) -> Found | None:
    reason = _given_up(state, execution)
    if reason:
        return E.ACTIVATE_FAILED, f"the new release was given up: {reason}"
    is_it = _told(state).running == execution.job.bundle
    return (E.ACTIVATED, "") if is_it and lane.update.attempt.is_done else None


def _health(state: State, lane: Lane, execution: Execution, at: Instant) -> Found | None:
    if _told(state).running != execution.job.bundle:
        return E.UNHEALTHY, f"the new release was given up: {_given_up(state, execution) or 'another one runs'}"
    for model in state.lanes.values():
        failed = model.runner.failed.get(("active", model.slots.active))
        if failed is not None and model.slots.active:
            return E.UNHEALTHY, f"model '{model.model}' does not load with the new release: {failed}"
    limit, since = execution.job.probation.timeout_s, state.launch.good_since
    if since is not None and at.mono - max(since, lane.update.attempt.since) >= min(HOLD_S, limit / 4):
        return E.HEALTHY, ""
    if at.mono - lane.update.attempt.since > limit:
        return E.UNHEALTHY, f"{_missing(state) or 'not well for long enough'} within {limit:g} s of the new release"
    return None


def _restored(state: State, lane: Lane, execution: Execution, at: Instant) -> Found | None:
    told, attempt = _told(state), lane.update.attempt
    if not attempt.is_done:
        return None
    if told.running == execution.previous:
        return E.RESTORED, ""
    if execution.previous in told.failed:
        why = told.failed[execution.previous]
        return E.RESTORE_FAILED, f"{execution.reason}; and the previous release was given up: {why}"
    if at.mono - attempt.since > RESTORE_S:
        return E.RESTORE_FAILED, f"{execution.reason}; and the previous release did not start in {RESTORE_S:g} s"
    return None


def leave(state: State) -> Outcome:
    """End the process once the pointer leads to another release than this one."""
    lane = state.software
    execution = lane.update.execution if lane else None
    if lane is None or execution is None or state.launch.is_leaving or not lane.update.attempt.is_done:
        return state, []
    new, old = execution.job.bundle, execution.previous
    goals: Mapping[Phase, str] = {P.ACTIVATING: new, P.COMMITTING: new, P.ROLLING_BACK: old}
    if goals.get(execution.phase, _told(state).running) == _told(state).running:
        return state, []
    return replace(state, launch=replace(state.launch, is_leaving=True)), [Restart()]
