# SPDX-License-Identifier: Apache-2.0
"""What happens every second: deadlines, windows, heartbeats, a model that no longer loads, rows to send."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from edge_agent.core import flow, orders, reports, reset, software, steps, storage, telemetry
from edge_agent.core.effects import Effect, FlipSlots, Note, ReadProfile, Save, SetPace, stamp
from edge_agent.core.events import Instant, Sample, Tick
from edge_agent.core.execution import POINTER_MAY_HAVE_MOVED
from edge_agent.core.flow import Outcome
from edge_agent.core.lane import WINDOWS_AHEAD, Lane
from edge_agent.core.policy import pace
from edge_agent.core.state import State

__all__ = ["close", "send", "ticked"]

LaneOutcome = tuple[Lane, list[Effect]]
OFFLINE_BEAT_S: Final = 60.0
"""Without a link metric rows cover a minute each: nobody looks now, and all of them go to the SD card."""


def ticked(state: State, event: Tick) -> Outcome:
    """A second passed."""
    at = event.at
    state, effects = flow.translate(state, _notices(state, event), at)
    for key, lane in state.lanes.items():
        sample = event.sample if lane is state.first else event.others.get(key, Sample())
        lane, started = reset.start(lane, at.mono)
        seen = replace(lane, sample=sample, is_sampled=True, totals=lane.totals.after(sample))
        state, effects = state.with_lane(seen), effects + stamp(started, key)
    whole: tuple[Callable[[State], Outcome], ...] = (
        _set_pace,
        *(lambda s, key=key: _each(s, key, at) for key in state.lanes),
        lambda s: software.ticked(s, at),
        lambda s: orders.recheck(s, at),
        lambda s: _beat(s, at),
        lambda s: send(s, at),
    )
    for one in whole:
        state, asked = one(state)
        state, more = flow.translate(state, asked, at)
        effects += more
    return state, effects


def _each(state: State, key: str, at: Instant) -> Outcome:
    """One lane's second."""
    effects: list[Effect] = []
    # A model that the release on trial cannot load is no fault of the model.
    mend = () if software.is_on_trial(state) else (_fall_back,)
    for one in (steps.expire, steps.retry, *mend, reset.passed, _watch):
        lane, asked = one(state.lanes[key], at)
        state, more = flow.translate(state.with_lane(lane), stamp(asked, key), at)
        effects += more
    return state, effects


def _notices(state: State, event: Tick) -> list[Effect]:
    return storage.notices(state.first.sample.conditions, event.sample.conditions)


def _set_pace(state: State) -> Outcome:
    """Tell the downloader how fast it may go, when that changes."""
    found = pace(state.settings, state.first.sample.conditions)
    if found == state.pace:
        return state, []
    return replace(state, pace=found), [SetPace(found.kbps, found.held)]


def _fall_back(lane: Lane, _at: Instant) -> LaneOutcome:
    """The active model does not load, and no order is to blame: go to the standby, then to the factory model."""
    execution, slots = lane.update.execution, lane.slots
    broken = lane.runner.failed.get(("active", slots.active))
    if broken is None or not slots.active:
        return lane, []
    if execution is not None and execution.phase in POINTER_MAY_HAVE_MOVED:
        return lane, []
    for bundle in (slots.standby, slots.factory):
        if bundle and bundle != slots.active and ("active", bundle) not in lane.runner.failed:
            body = {"kind": "fell_back", "from": slots.active, "to": bundle, "reason": broken[:300]}
            return lane, [FlipSlots(lane.model, bundle, ""), Note("alarm", body)]
    return lane, []


def _watch(lane: Lane, at: Instant) -> LaneOutcome:
    """Count drift windows; reserve their numbers; ask once for the profile of a bundle that is new here."""
    windows, effects = telemetry.observe(lane.windows, lane.sample, lane.settings, at)
    lane = replace(lane, windows=windows)
    if windows.number >= lane.window_floor:
        lane = replace(lane, window_floor=windows.number + WINDOWS_AHEAD)
        effects = [*effects, Save()]
    lane = _time(lane)
    bundle = windows.bundle
    if windows.base and bundle and windows.profile is None and lane.profile_asked != bundle:
        lane = replace(lane, profile_asked=bundle)
        effects = [*effects, ReadProfile(lane.model, bundle)]
    return lane, effects


def _time(lane: Lane) -> Lane:
    """Keep the active model's median latency; during a trial take that of the new one as evidence."""
    execution = lane.update.execution
    if execution is None or execution.phase not in POINTER_MAY_HAVE_MOVED:
        median = telemetry.median_us(lane.sample, lane.slots.active)
        return replace(lane, baseline=(lane.slots.active, median)) if median else lane
    median = telemetry.median_us(lane.sample, execution.job.bundle)
    seen = replace(lane.update.attempt.evidence, median_us=median, baseline_us=execution.baseline_us)
    return lane.trying(evidence=seen)


def _beat(state: State, at: Instant) -> Outcome:
    """The heartbeat: a metric row of each lane for the outbox, and twin/reported for whoever looks now."""
    if at.mono < state.next_beat:
        return state, []
    effects: list[Effect] = []
    for key, lane in state.lanes.items():
        meter, body = lane.meter.beat(lane.sample, at)
        state = state.with_lane(replace(lane, meter=meter))
        effects.append(storage.spared(Note("metric", body, lane=key), state.first.sample.conditions))
    pause = state.settings.heartbeat_s if state.is_connected else max(state.settings.heartbeat_s, OFFLINE_BEAT_S)
    state = replace(state, next_beat=at.mono + pause)
    return state, [*effects, *([reports.reported(state, at)] if state.is_connected else [])]


def send(state: State, at: Instant) -> Outcome:
    """Send the rows that may go now."""
    if not state.is_connected:
        return state, []
    outbox, effects = state.outbox.due(at.mono)
    return replace(state, outbox=outbox), effects


def close(lane: Lane, at: Instant) -> LaneOutcome:
    """Close the open window, and let the runner end for good."""
    windows, effects = telemetry.close(lane.windows, lane.sample.health, at, lane.settings, lane.sample.seed)
    runner = replace(lane.runner, stopping=True, start_at=float("inf"))
    return replace(lane, windows=windows, runner=runner), effects
