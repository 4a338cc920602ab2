# SPDX-License-Identifier: Apache-2.0
"""Orders from the server: which are checked, handed to a model's lane, refused, or kept until the way is free.

Orders are retained, so the same envelope comes again with every connection, and a server of today puts the first
model's on two channels. The envelope's digest decides whether it is news; only news costs a run of the trust helper.
"""

from dataclasses import replace

from edge_agent.core import intake
from edge_agent.core.desk import Desk
from edge_agent.core.effects import CheckJob, Effect, Note, Report, stamp
from edge_agent.core.events import Instant, JobChecked, JobRefused
from edge_agent.core.execution import retry_s
from edge_agent.core.state import State
from edge_contract import canonical
from edge_contract.messages import SOFTWARE
from edge_contract.topics import is_name

__all__ = ["checked", "heard", "recheck", "refused"]

Outcome = tuple[State, list[Effect]]


def _put(state: State, channel: str, desk: Desk) -> State:
    return replace(state, desks={**state.desks, channel: desk})


def heard(state: State, channel: str, payload: bytes) -> Outcome:
    """Take in what stands on a channel of orders."""
    desk = state.desks.get(channel, Desk())
    if not payload:
        return _put(state, channel, Desk(checking=desk.checking, refused=desk.refused)), []
    envelope = canonical.digest(payload)
    for key, lane in state.ordered.items():
        execution, finished = lane.update.execution, lane.update.finished
        if execution is not None and execution.envelope == envelope:
            return state, []
        if finished is not None and finished.envelope == envelope:
            return state, [Report(again=True, lane=key)]
    others = [other for name, other in state.desks.items() if name != channel]
    if envelope in (desk.checking, desk.refused) or any(envelope in (o.envelope, o.refused) for o in others):
        return state, []
    fresh = replace(desk, envelope=envelope, payload=payload, check_at=None, checks=0, behind=None)
    return _check(_put(state, channel, fresh), channel)


def _check(state: State, channel: str) -> Outcome:
    """Ask the trust helper about what lies on a channel, one at a time."""
    desk = state.desks[channel]
    if desk.checking or not desk.envelope:
        return state, []
    asked = replace(desk, checking=desk.envelope, check_at=None)
    return _put(state, channel, asked), [CheckJob(desk.envelope, desk.payload)]


def _answered(state: State, envelope: str) -> str | None:
    """Return the channel that waits for the answer about an envelope."""
    return next((name for name, desk in state.desks.items() if desk.checking == envelope), None)


def refused(state: State, event: JobRefused) -> Outcome:
    """The helper refused an envelope, or could not run: then it is asked again later."""
    channel = _answered(state, event.envelope)
    if channel is None:
        return state, []
    desk = replace(state.desks[channel], checking="")
    if desk.envelope != event.envelope:
        return _check(_put(state, channel, desk), channel)  # a newer one came meanwhile
    if event.may_retry:
        again = replace(desk, checks=desk.checks + 1, check_at=event.at.mono + retry_s(desk.checks + 1))
        return _put(state, channel, again), []
    return _refuse(state, channel, desk, event.reason)


def _refuse(state: State, channel: str, desk: Desk, reason: str) -> Outcome:
    note = Note("alarm", {"kind": "order_refused", "envelope": desk.envelope, "reason": reason[:300]})
    return _put(state, channel, Desk(refused=desk.envelope)), [note]


def checked(state: State, event: JobChecked) -> Outcome:
    """A genuine order."""
    channel = _answered(state, event.envelope)
    if channel is None:
        return state, []
    desk = replace(state.desks[channel], checking="")
    if desk.envelope != event.envelope:
        return _check(_put(state, channel, desk), channel)
    job, done = event.job, _put(state, channel, Desk(refused=desk.refused))
    if job.kind == "none":
        return done, []
    if not (is_name(job.job_id) and is_name(job.model)):
        # Neither may become a topic or a folder; there is no place to answer to.
        return _refuse(state, channel, desk, f"{job.job_id[:70]!r} or {job.model[:70]!r} is not a name")
    if job.model == SOFTWARE and state.software is None:
        return _refuse(state, channel, desk, "this agent was not started by its launcher, and cannot update itself")
    lane = state.lane_of(job.model)
    if job.kind == "cancel":
        if lane is None:
            return done, []
        changed, effects = intake.cancel(lane, job, event.at)
        return done.with_lane(changed), stamp(effects, lane.plan.key)
    return _install(state, channel, event)


def _install(state: State, channel: str, event: JobChecked) -> Outcome:
    """Hand an order to its lane; one for a model that this device does not have is refused by the first."""
    lane, desk = state.lane_of(event.job.model) or state.first, replace(state.desks[channel], checking="")
    changed, effects, is_done = intake.install(lane, event.job, event.envelope, event.at)
    left = Desk(refused=desk.refused) if is_done else replace(desk, check_at=event.at.mono, behind=lane.plan.key)
    return _put(state.with_lane(changed), channel, left), stamp(effects, lane.plan.key)


def recheck(state: State, at: Instant, *, now: bool = False) -> Outcome:
    """Ask again about what could not be checked, and about what waited for the end of another order."""
    effects: list[Effect] = []
    for channel, desk in state.desks.items():
        is_free = desk.behind is None or state.lane(desk.behind).update.execution is None
        if desk.check_at is not None and is_free and (now or at.mono >= desk.check_at):
            state, more = _check(state, channel)
            effects += more
    return state, effects
