# SPDX-License-Identifier: Apache-2.0
"""A lane climbs its accelerator's reset ladder: what follows from each end of the runner and from each quiet second.

None of this is in the journal: a start of the agent begins with the accelerator, as a re-plugged stick would.
"""

from dataclasses import replace
from typing import Final

from edge_agent.core.effects import Effect, Note, ReEnumerate, StartRunner, StopRunner
from edge_agent.core.events import Instant, ReEnumerated, RunnerExited
from edge_agent.core.execution import POINTER_MAY_HAVE_MOVED
from edge_agent.core.ladder import Action
from edge_agent.core.lane import Lane
from edge_agent.core.probation import Evidence
from edge_contract.states import Phase

__all__ = ["HUNG", "excused", "failed", "is_accelerated", "is_hang", "passed", "re_enumerated", "start"]

Outcome = tuple[Lane, list[Effect]]
HUNG: Final = 75
"""The exit code of a runner whose accelerator hung or was gone (``runner.watchdog.EXIT_HUNG``): the device's fault."""
PAUSE_S: Final = 0.5
"""Before each start while the ladder is climbed: its rungs are few, so no pause has to grow."""
RESET_S: Final = 60.0
"""A re-enumeration that does not answer holds the runner back no longer than this."""


def is_accelerated(lane: Lane) -> bool:
    """True while the runner's ends are the accelerator's: it has a ladder, and is not on its CPU model."""
    return lane.plan.rungs is not None and not lane.ladder.is_on_cpu


def is_hang(lane: Lane, code: int) -> bool:
    """True if an exit code says that the accelerator hung or is gone; a runner on the CPU watches for no hang."""
    return lane.plan.rungs is not None and code == HUNG


def start(lane: Lane, mono: float) -> Outcome:
    """Start the runner when it is due, but not in the middle of a re-enumeration."""
    if not lane.runner.is_up and mono < lane.reset_until:
        return lane, []
    runner, effects = lane.runner.start(mono)
    lane = replace(lane, runner=runner)
    if not lane.ladder.is_on_cpu:
        return lane, effects
    spare = StartRunner(is_on_cpu=True, model=lane.model, bundle=lane.slots.active)
    return lane, [spare if isinstance(effect, StartRunner) else effect for effect in effects]


def failed(lane: Lane, event: RunnerExited) -> Outcome:
    """The runner ended without our wish while the accelerator was in use: climb one rung."""
    rungs, at = lane.plan.rungs, event.at
    if rungs is None:
        return lane, []
    ladder, action, is_alarm = lane.ladder.failed(at.mono, rungs)
    lane = replace(lane, ladder=ladder, runner=replace(lane.runner, start_at=at.mono + PAUSE_S))
    facts = {"action": action.value, "failures": ladder.failures, "code": event.code}
    effects: list[Effect] = [Note("event", {"kind": "accelerator", **facts})]
    if is_alarm:
        reason = f"the accelerator failed {ladder.failures} times in a row: the CPU takes over"
        effects.append(Note("alarm", {"kind": "accelerator", "reason": reason, **facts}))
    if action is Action.RE_ENUMERATE:
        return _held(lane, at), [*effects, ReEnumerate()]
    return (_moved(lane) if action is Action.USE_CPU else lane), effects


def excused(lane: Lane, at: Instant) -> Lane:
    """A hang is not held against a model on trial: its evidence and its time begin again, its crashes stay."""
    execution = lane.update.execution
    if execution is None or execution.phase is not Phase.HEALTH_CHECK:
        return lane
    return lane.trying(since=at.mono, evidence=Evidence(crashes=execution.crashes))


def passed(lane: Lane, at: Instant) -> Outcome:
    """A second went by: forgive, or try the accelerator again; not in the middle of an order."""
    rungs = lane.plan.rungs
    if rungs is None or (lane.ladder.is_on_cpu and lane.update.execution is not None):
        return lane, []
    ladder, action = lane.ladder.passed(at.mono, rungs)
    lane = replace(lane, ladder=ladder)
    if action is None:
        return lane, []
    effects: list[Effect] = [Note("event", {"kind": "accelerator", "action": action.value})]
    lane = _moved(lane)
    if lane.runner.is_up:
        lane = replace(lane, runner=replace(lane.runner, stopping=True))
        effects.append(StopRunner())
    if rungs.re_enumerations:
        lane = _held(lane, at)
        effects.append(ReEnumerate())
    return lane, effects


def re_enumerated(lane: Lane, event: ReEnumerated) -> Outcome:
    """The kernel looked anew, or could not: the next start is the proof."""
    lane = replace(lane, reset_until=0.0)
    if not event.reason:
        return lane, []
    return lane, [Note("event", {"kind": "accelerator", "action": "re_enumerate", "reason": event.reason[:300]})]


def _held(lane: Lane, at: Instant) -> Lane:
    return replace(lane, reset_until=at.mono + RESET_S)


def _moved(lane: Lane) -> Lane:
    """Another processor: what was refused may load there, and no latency from before compares with its own."""
    update = lane.update
    execution = update.execution
    if execution is not None and execution.phase in POINTER_MAY_HAVE_MOVED:
        update = replace(update, execution=replace(execution, baseline_us=0.0))
    runner = replace(lane.runner, failed={})
    return replace(lane, update=update, runner=runner, baseline=("", 0.0))
