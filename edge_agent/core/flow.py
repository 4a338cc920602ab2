# SPDX-License-Identifier: Apache-2.0
"""From what a lane asks to what the rim can do, and on until nothing more follows from the facts."""

from dataclasses import replace

from edge_agent.core import reports, software, update, waiting
from edge_agent.core.effects import CountLost, Effect, Log, Note, Persist, Report, RunStep, Save, stamp
from edge_agent.core.events import Instant
from edge_agent.core.execution import Update
from edge_agent.core.lane import Lane, wanted
from edge_agent.core.state import State, journal
from edge_agent.core.swap import HOT, choose
from edge_contract.errors import ContractError
from edge_contract.messages import SOFTWARE
from edge_contract.states import Phase

__all__ = ["Outcome", "settle", "translate"]

Outcome = tuple[State, list[Effect]]
_NAMED = ("event", "alarm", "metric")
"""Classes of rows that say whose they are on a device with several models; results and windows name their bundle."""


def translate(state: State, asked: list[Effect], at: Instant) -> Outcome:
    """Replace the core's inner effects by what the rim can do."""
    effects: list[Effect] = []
    for effect in asked:
        if isinstance(effect, Save):
            effects.append(Persist(journal(state)))
        elif isinstance(effect, Report):
            effects += reports.status(state.lane(effect.lane), at, again=effect.again) if state.is_connected else []
        elif isinstance(effect, RunStep):
            lane, begun = waiting.begin(state.lane(effect.lane), effect, at)
            state, effects = state.with_lane(lane), effects + begun
        elif isinstance(effect, Note):
            state, kept = _keep(state, effect, at)
            effects += kept
        else:
            effects.append(effect)
    return state, effects


def _keep(state: State, note: Note, at: Instant) -> Outcome:
    body = note.body
    if (len(state.lanes) > 1 or note.lane == SOFTWARE) and note.cls in _NAMED and note.lane:
        body = {**body, "model": state.lane(note.lane).model}
    try:
        outbox, effects = state.outbox.put(note.cls, at.wall, body)
    except ContractError as error:  # such as NaN in what the runner says: one row is lost, and counted
        return state, [CountLost(note.cls), Log("error", f"a {note.cls} row cannot be written: {error}")]
    return replace(state, outbox=outbox), effects


def settle(state: State, at: Instant) -> Outcome:
    """Follow the facts of each lane, bring its runner to what is wanted, and tell what changed."""
    effects: list[Effect] = []
    state = software.looked(state, at)
    for key in state.ordered:
        state, followed = _follow(state, key, at)
        effects += followed
    state, left = software.leave(state)
    effects += left
    for key, lane in state.lanes.items():
        runner, commands = lane.runner.converge(wanted(lane), at.mono)
        state, effects = state.with_lane(replace(lane, runner=runner)), effects + stamp(commands, key)
    state, told = reports.tell_changes(state, at)
    return state, [*effects, *told]


def _follow(state: State, key: str, at: Instant) -> Outcome:
    effects: list[Effect] = []
    for _ in Phase:  # each round leaves a phase, and none is entered twice
        planned = _plan_swap(state.lane(key), _promised_kb(state, key))
        lane, waited = waiting.look(planned, at, software.in_the_way(state, planned))
        state, more = translate(state.with_lane(lane), stamp(waited, key), at)
        effects += more
        lane = state.lane(key)
        is_ours = key == SOFTWARE
        found = software.fact(state, at) if is_ours else update.fact(lane.update, lane.slots, lane.runner, at)
        if found is None:
            break
        changed, asked = update.advance(_with_baseline(lane), found[0], lane.slots, at, found[1])
        state, more = translate(state.with_lane(replace(lane, update=changed)), stamp(asked, key), at)
        effects += more
    return state, effects


def _promised_kb(state: State, key: str) -> int:
    """Return what other lanes' candidates will take that are about to be loaded, and are not in memory yet."""
    promised = 0
    for lane in (lane for other, lane in state.lanes.items() if other != key):
        order = lane.update.execution
        if order is not None and order.swap == HOT and lane.runner.shadow != order.job.bundle:
            promised += lane.update.attempt.need_kb
    return promised


def _plan_swap(lane: Lane, promised_kb: int) -> Lane:
    """Decide whether both models fit beside each other; it is journalled with the next transition."""
    execution, attempt = lane.update.execution, lane.update.attempt
    if execution is None or execution.phase is not Phase.VERIFYING or not attempt.is_done or not lane.is_sampled:
        return lane
    if execution.swap:
        return lane
    rule, bundle = lane.settings.swap if lane.plan.owns_runner else HOT, execution.job.bundle
    free_kb = lane.sample.conditions.memory_kb
    left_kb = max(1, free_kb - promised_kb) if free_kb else 0  # 0: unknown
    swap = choose(rule, need_kb=attempt.need_kb, memory_kb=left_kb, slots=lane.slots, bundle=bundle)
    return replace(lane, update=replace(lane.update, execution=replace(execution, swap=swap)))


def _with_baseline(lane: Lane) -> Update:
    """Write into an order that is about to move the pointer how fast the model is that it will be compared with."""
    execution = lane.update.execution
    if execution is None or execution.phase not in (Phase.STAGED, Phase.WAITING_WINDOW):
        return lane.update
    bundle, median = lane.baseline
    known = replace(execution, baseline_us=median if bundle == lane.slots.active else 0.0)
    return replace(lane.update, execution=known)
