# SPDX-License-Identifier: Apache-2.0
"""The start of the process: take over what the disk remembers, and take up again what was under way."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edge_agent.core import commands, software, update
from edge_agent.core.effects import Effect, Forget, Note, Save, stamp
from edge_agent.core.events import Booted, Instant
from edge_agent.core.lane import WINDOWS_AHEAD, Lane
from edge_agent.core.outbox import Outbox
from edge_agent.core.state import State
from edge_agent.core.twin import Twin, merge_models
from edge_contract.errors import ContractError
from edge_contract.states import Status

__all__ = ["booted"]

Outcome = tuple[State, list[Effect]]


def booted(state: State, event: Booted) -> Outcome:
    """Begin with the journal, the slots and the outbox."""
    me, at = state.me, event.at
    outbox = Outbox.opened(me.outbox_bytes, me.boot, event.outbox, event.dropped)
    state = replace(state, outbox=outbox, booted_at=at.mono)
    first = state.first
    state = state.with_lane(replace(first, model=event.model or first.model, slots=event.slots))
    for key, slots in event.others.items():
        state = state.with_lane(replace(state.lanes[key], slots=slots))
    state = software.begun(state, event.software)
    alarms: list[Effect] = []
    try:
        state = _remember(state, event.journal)
        desktop, alarms = commands.remember(event.journal.get("commands", {}))
        state = replace(state, desktop=desktop)
    except (ContractError, LookupError, TypeError, AttributeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        alarms.append(Note("alarm", {"kind": "journal_unreadable", "reason": reason}))
    resumed, started = list[Effect](), list[Effect]()
    for key, lane in state.lanes.items():
        lane, again, began = _resume(replace(lane, runner=event.runners.get(key, lane.runner)), at)
        state = state.with_lane(lane)
        resumed, started = [*resumed, *stamp(again, key)], [*started, *stamp(began, key)]
    state, again = software.resumed(state, at)
    resumed += again
    active = state.first.slots.active
    boot = Note("event", {"kind": "boot", "agent": me.agent_version, "runtime": me.runtime, "active": active})
    return state, [Save(), *resumed, *alarms, boot, *started]


def _resume(lane: Lane, at: Instant) -> tuple[Lane, list[Effect], list[Effect]]:
    changed, resumed = update.resume(lane.update, lane.slots, at)
    resumed = [*resumed, *_swept(lane)]
    floor = lane.window_floor
    windows = replace(lane.windows, number=floor + 1)
    runner, started = lane.runner.start(at.mono)
    ready = replace(lane, update=changed, windows=windows, window_floor=floor + WINDOWS_AHEAD, runner=runner)
    return ready, resumed, started


def _swept(lane: Lane) -> list[Effect]:
    """Delete what the last order left: the power may have failed between its end and that. A late download stays."""
    finished = lane.update.finished
    if lane.update.execution is not None or finished is None or finished.report.status is Status.TIMED_OUT:
        return []
    return [Forget(lane.model, ())]


def _remember(state: State, journal: Mapping[str, Any]) -> State:
    """Return the state with the journal's memory; an empty journal is a new device.

    A model is known by its name, so that agent.toml may gain models, lose some and name another one first.
    """
    if not journal:
        return state
    memories = {**journal.get("lanes", {}), journal.get("model", ""): journal}
    twin = journal["twin"]
    state = software.remembered(state, journal.get("software"))
    lanes = []
    for lane in state.lanes.values():
        is_unnamed = lane is state.first and not journal.get("model")
        memory = journal if is_unnamed else memories.get(lane.model or journal["model"])
        lanes.append(lane.remember(memory) if memory else lane)
    defaults = {lane.model: lane.plan.settings for lane in lanes}
    settings, ignored = merge_models(defaults, twin["config"], frozenset(state.me.sources))
    for lane, found in zip(lanes, settings, strict=True):
        state = state.with_lane(replace(lane, settings=found))
    return replace(state, twin=Twin(int(twin["version"]), dict(twin["config"]), ignored))
