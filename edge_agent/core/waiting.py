# SPDX-License-Identifier: Apache-2.0
"""Orders at a closed gate: a step that may not begin is held back, reported, and begun when the gate opens."""

from dataclasses import replace

from edge_agent.core import update
from edge_agent.core.effects import Effect, Report, RunStep
from edge_agent.core.events import Instant
from edge_agent.core.lane import Lane
from edge_agent.core.policy import Wait, gate

__all__ = ["begin", "look", "may_go_on"]

Outcome = tuple[Lane, list[Effect]]


def _closed(lane: Lane, at: Instant) -> Wait | None:
    execution = lane.update.execution
    return gate(execution.phase, lane.settings, lane.sample, at) if execution is not None else None


def may_go_on(lane: Lane, at: Instant) -> bool:
    """True unless the order under way stands at a closed gate."""
    return _closed(lane, at) is None


def begin(lane: Lane, step: RunStep, at: Instant) -> Outcome:
    """Begin a slow step, or hold it back; the wait itself is told by ``look``."""
    if _closed(lane, at) is None:
        return replace(lane, update=lane.update.trying(is_held=False)), [step]
    return replace(lane, update=lane.update.trying(is_held=True)), []


def look(lane: Lane, at: Instant, behind: Wait | None = None) -> Outcome:
    """Look at the gate of the present phase: report a wait that is new or other, begin what was held back.

    ``behind``: another order has to end before this one may be switched on.
    """
    found, attempt = _closed(lane, at) or behind, lane.update.attempt
    effects: list[Effect] = []
    if found != attempt.wait:
        lane = replace(lane, update=lane.update.trying(wait=found, minor=attempt.minor + 1))
        if found is not None:
            effects.append(Report())
    if found is None and attempt.is_held:
        lane = replace(lane, update=lane.update.trying(is_held=False, retry_at=None))
        effects += update.enter(lane.update, lane.slots)
    return lane, effects
