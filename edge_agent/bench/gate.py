# SPDX-License-Identifier: Apache-2.0
"""When a benchmark may go on: the rules of updates hold for it, and it never stands beside an order under way. Pure."""

from dataclasses import replace

from edge_agent.core import policy
from edge_agent.core.events import Instant, Sample
from edge_agent.core.state import State
from edge_contract.states import Phase

__all__ = ["has_lock", "why_stop", "why_wait"]

_ASKED = (Phase.ACCEPTED, Phase.DOWNLOADING, Phase.STAGED)
"""Battery, heat and storage; the link; the window and the application's lock: what an update asks one after another."""


def why_wait(state: State, at: Instant) -> str:
    """Return what a benchmark waits for, empty if it may begin."""
    if not state.first.is_sampled:
        return "the agent has just started"
    if any(lane.update.execution is not None for lane in state.ordered.values()):
        return "an update is under way"
    sample = _alone(state.first.sample)
    for phase in _ASKED:
        if (found := policy.gate(phase, state.settings, sample, at)) is not None:
            return found.text
    return ""


def why_stop(state: State, at: Instant) -> str:
    """Return why a measurement under way has to end, empty while it may go on: battery, heat or the disk."""
    found = policy.gate(Phase.ACCEPTED, state.settings, _alone(state.first.sample), at)
    return found.text if found is not None else ""


def has_lock(state: State, job_id: str) -> bool | None:
    """True if the lock is in force and no order is beyond its first gate; None while it is not yet in force."""
    if state.first.sample.conditions.benchmark != job_id:
        return None
    orders = (lane.update.execution for lane in state.ordered.values())
    return all(order is None or order.phase is Phase.ACCEPTED for order in orders)


def _alone(sample: Sample) -> Sample:
    return replace(sample, conditions=replace(sample.conditions, benchmark=""))
