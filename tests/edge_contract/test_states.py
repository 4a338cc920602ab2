# SPDX-License-Identifier: Apache-2.0
"""The transition tables: complete, closed, and free of dead ends that are not final."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import diagrams, states
from edge_contract.errors import TransitionError
from edge_contract.states import EXECUTION, ROLLOUT, WAVE, Phase, PhaseEvent, RolloutState, WaveState, step

MACHINES = {
    "execution": (EXECUTION, Phase, PhaseEvent, Phase.QUEUED),
    "rollout": (ROLLOUT, RolloutState, states.RolloutEvent, RolloutState.DRAFT),
    "wave": (WAVE, WaveState, states.WaveEvent, WaveState.PENDING),
}
FINAL = {
    "execution": {
        Phase.DONE,
        Phase.ROLLED_BACK,
        Phase.ROLLBACK_FAILED,
        Phase.REJECTED,
        Phase.FAILED,
        Phase.CANCELED,
    },
    "rollout": {RolloutState.DENIED, RolloutState.ROLLED_BACK},
    "wave": {WaveState.PASSED, WaveState.FAILED, WaveState.SKIPPED},
}
machine = pytest.mark.parametrize("name", sorted(MACHINES))


def reachable(table, start, *, without=frozenset()):
    found, waiting = {start}, [start]
    while waiting:
        for event, target in table[waiting.pop()].items():
            if event not in without and target not in found:
                found.add(target)
                waiting.append(target)
    return found


@machine
def test_every_state_has_a_row_and_the_table_leads_nowhere_else(name):
    table, kind, events, _ = MACHINES[name]
    assert set(table) == set(kind)
    assert {target for exits in table.values() for target in exits.values()} <= set(kind)
    assert {event for exits in table.values() for event in exits} <= set(events)


@machine
def test_every_state_can_be_reached_from_the_start(name):
    table, kind, _, start = MACHINES[name]
    assert reachable(table, start) == set(kind)


@machine
def test_every_event_is_accepted_somewhere(name):
    table, _, events, _ = MACHINES[name]
    assert {event for exits in table.values() for event in exits} == set(events)


@machine
def test_final_states_and_only_these_have_no_exit(name):
    table = MACHINES[name][0]
    assert {state for state, exits in table.items() if not exits} == FINAL[name]


@machine
def test_from_every_state_an_end_can_be_reached(name):
    table = MACHINES[name][0]
    for state in table:
        assert reachable(table, state) & FINAL[name], f"{state} can never end"


def test_terminal_statuses_are_all_but_the_two_that_move():
    assert {states.Status.QUEUED, states.Status.IN_PROGRESS} == set(states.Status) - states.TERMINAL_STATUS


def test_once_the_pointer_may_have_moved_there_is_only_commit_or_roll_back():
    after = reachable(EXECUTION, Phase.ACTIVATING)
    assert {s for s in after if not EXECUTION[s]} == {Phase.DONE, Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED}
    assert all(PhaseEvent.CANCEL not in EXECUTION[state] for state in after)


def test_before_activation_every_phase_can_be_cancelled_and_times_out():
    before = reachable(EXECUTION, Phase.QUEUED, without={PhaseEvent.WINDOW_OPEN})
    for phase in (phase for phase in before if EXECUTION[phase]):
        assert step(EXECUTION, phase, PhaseEvent.CANCEL) is Phase.CANCELED
        assert step(EXECUTION, phase, PhaseEvent.DEADLINE) is Phase.FAILED


def test_nothing_is_activated_that_was_not_verified():
    unverified = reachable(EXECUTION, Phase.QUEUED, without={PhaseEvent.VERIFIED})
    assert Phase.ACTIVATING not in unverified
    assert Phase.DONE not in reachable(EXECUTION, Phase.QUEUED, without={PhaseEvent.HEALTHY})


@given(st.sampled_from(sorted(MACHINES)), st.data())
def test_a_step_follows_the_table_or_names_state_and_event(name, data):
    table, kind, events, _ = MACHINES[name]
    state, event = data.draw(st.sampled_from(list(kind))), data.draw(st.sampled_from(list(events)))
    if event in table[state]:
        assert step(table, state, event) is table[state][event]
        return
    with pytest.raises(TransitionError) as caught:
        step(table, state, event)
    assert str(caught.value).startswith(f"{state.value} does not accept '{event.value}'; it ")
    assert all(accepted.value in str(caught.value) for accepted in table[state])


@given(st.lists(st.sampled_from(list(PhaseEvent)), max_size=40))
def test_any_event_order_keeps_to_the_table_and_final_is_final(events):
    phase = Phase.QUEUED
    for event in events:
        before = phase
        try:
            phase = step(EXECUTION, phase, event)
        except TransitionError:
            assert phase is before
        assert before not in FINAL["execution"] or phase is before


@machine
def test_the_drawing_shows_every_transition(name):
    table = MACHINES[name][0]
    drawn = diagrams.diagram(table)
    for state, exits in table.items():
        for event, target in exits.items():
            lines = [x for x in drawn.splitlines() if x.strip().startswith(f"{state.value} --> {target.value}:")]
            assert len(lines) == 1
            assert event.value in lines[0].split(": ")[1].split(", ")
    assert drawn.count("--> [*]") == len(FINAL[name])
