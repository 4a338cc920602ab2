# SPDX-License-Identifier: Apache-2.0
"""The agent's one decision: ``handle(state, event) -> (state, effects)``.

The rim promises: events come one at a time; effects are carried out in their order; ``Persist`` is on the disk
before the next effect begins; and the events that an effect gives at once (``Flipped``, ``RowsGone``,
``BatchSent``, ``ProfileRead``) are handled before any other event.

After each event the facts are looked at until nothing more follows from them (``settling``): the update machine of
each model advances, its runner is brought to what is wanted, and a change of what is reported is told.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from edge_agent.core import commands, flow, hearing, heartbeat, messages, orders, reports, reset, starting, steps
from edge_agent.core import events as ev
from edge_agent.core.effects import Effect, Publish, Save, StopRunner, stamp
from edge_agent.core.flow import Outcome
from edge_agent.core.lane import Lane
from edge_agent.core.state import State, initial

__all__ = ["handle", "initial"]


def handle(state: State, event: ev.Event) -> Outcome:
    """Return the next state, and what to do, for one event."""
    state, asked = _HANDLERS[type(event)](state, event)
    state, effects = flow.translate(state, asked, event.at)
    state, more = flow.settle(state, event.at)
    return state, effects + more


def _of_lane(act: Callable[[Lane, Any], tuple[Lane, list[Effect]]]) -> Callable[[State, Any], Outcome]:
    """Return the handler of an event that names its lane."""

    def handler(state: State, event: ev.LaneEvent) -> Outcome:
        lane, effects = act(state.lane(event.lane), event)
        return state.with_lane(lane), stamp(effects, lane.plan.key)

    return handler


def _of_job(act: Callable[[Lane, Any], tuple[Lane, list[Effect]]]) -> Callable[[State, Any], Outcome]:
    """Return the handler of an event that names the order under way; one that is over concerns nobody."""

    def handler(state: State, event: Any) -> Outcome:
        for key, lane in state.ordered.items():
            execution = lane.update.execution
            if execution is not None and execution.job.job_id == event.job_id:
                changed, effects = act(lane, event)
                return state.with_lane(changed), stamp(effects, key)
        return state, []

    return handler


def _said(state: State, event: ev.RunnerSaid) -> Outcome:
    """One line of a runner; the birth tells the first one's version, which is known only now."""
    lane = state.lane(event.lane)
    before = lane.runner.runtime_version
    lane, effects = hearing.said(lane, event)
    state = state.with_lane(lane)
    if lane is state.first and state.is_connected and lane.runner.runtime_version != before:
        effects = [*effects, reports.birth(state, event.at)]
    return state, stamp(effects, lane.plan.key)


def _stopping(state: State, event: ev.Stopping) -> Outcome:
    """Say good-bye: the open windows go to the outbox, and the server need not wait for the will."""
    effects: list[Effect] = []
    for key, lane in state.lanes.items():
        closed, told = heartbeat.close(lane, event.at)
        state, effects = state.with_lane(closed), [*effects, *stamp(told, key)]
    said: list[Effect] = [Publish("state/death", reports.death(state), retain=True)] if state.is_connected else []
    ends = [StopRunner(lane=key) for key in state.lanes]
    return state, [*effects, Save(), *said, *ends]


def _connected(state: State, event: ev.Connected) -> Outcome:
    state = replace(state, is_connected=True, session=event.session, told=(), outbox=state.outbox.offline())
    state = replace(state, next_beat=min(state.next_beat, event.at.mono + state.settings.heartbeat_s))
    effects: list[Effect] = [reports.birth(state, event.at)]
    for key, lane in state.ordered.items():
        effects += reports.status(lane, event.at)
        tried, again = steps.retry(lane, event.at, now=True)
        state, effects = state.with_lane(tried), [*effects, *stamp(again, key)]
    state, asked = orders.recheck(state, event.at, now=True)
    state, sent = heartbeat.send(state, event.at)
    return state, [*effects, *asked, *sent]


def _disconnected(state: State, event: ev.Disconnected) -> Outcome:
    return replace(state, is_connected=False, outbox=state.outbox.offline()), []


def _published(state: State, event: ev.Published) -> Outcome:
    for lane in state.ordered.values():
        finished = lane.update.finished
        if finished is not None and not finished.is_confirmed and event.token == f"result:{finished.job_id}":
            confirmed = replace(lane.update, finished=replace(finished, is_confirmed=True))
            return state.with_lane(replace(lane, update=confirmed)), [Save()]
    return state, []


def _profile_read(lane: Lane, event: ev.ProfileRead) -> tuple[Lane, list[Effect]]:
    if event.bundle != lane.windows.bundle:
        return lane, []
    return replace(lane, windows=replace(lane.windows, profile=event.profile)), []


def _command_done(state: State, event: ev.CommandDone) -> Outcome:
    desktop, effects = commands.done(state.desktop, event)
    return replace(state, desktop=desktop), effects


def _handler_failed(state: State, event: ev.HandlerFailed) -> Outcome:
    desktop, effects = commands.crashed(state.desktop, event)
    return replace(state, desktop=desktop), effects


def _sent(state: State, event: ev.BatchSent) -> Outcome:
    return replace(state, outbox=state.outbox.sent(event.boot, event.cls, event.up_to_seq)), []


def _gone(state: State, event: ev.RowsGone) -> Outcome:
    facts = {"rows": event.rows, "size": event.size, "up_to_seq": event.up_to_seq}
    outbox = state.outbox.gone(event.boot, event.cls, dropped=event.dropped, asked=event.asked, **facts)
    return replace(state, outbox=outbox), []


_HANDLERS: Final[Mapping[type[ev.Event], Callable[[State, Any], Outcome]]] = {
    ev.Booted: starting.booted,
    ev.Tick: heartbeat.ticked,
    ev.Stopping: _stopping,
    ev.Connected: _connected,
    ev.Disconnected: _disconnected,
    ev.Message: messages.heard,
    ev.Published: _published,
    ev.JobChecked: orders.checked,
    ev.JobRefused: orders.refused,
    ev.Progress: _of_job(steps.progressed),
    ev.StepDone: _of_job(steps.step_done),
    ev.StepFailed: _of_job(steps.step_failed),
    ev.Flipped: _of_lane(steps.flipped),
    ev.ProfileRead: _of_lane(_profile_read),
    ev.RunnerSaid: _said,
    ev.RunnerExited: _of_lane(hearing.exited),
    ev.ReEnumerated: _of_lane(reset.re_enumerated),
    ev.CommandDone: _command_done,
    ev.HandlerFailed: _handler_failed,
    ev.BatchSent: _sent,
    ev.RowsGone: _gone,
}
