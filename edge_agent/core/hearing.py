# SPDX-License-Identifier: Apache-2.0
"""What the runner says, and that it ended: results to keep, evidence for a trial, alarms."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from edge_agent.core import reset, shadowing, update
from edge_agent.core.effects import Effect, Note
from edge_agent.core.events import RunnerExited, RunnerSaid
from edge_agent.core.lane import Lane
from edge_contract.states import Phase

__all__ = ["exited", "said"]

Outcome = tuple[Lane, list[Effect]]
KILLED: Final = -9
"""The exit code after SIGKILL: nobody but the kernel sends it to a runner that was not asked to stop."""
CRASH_ALARM: Final = 5
"""So many crashes in a row outside a trial are an alarm."""


def _some(words: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: words[name] for name in names if name in words}


def said(lane: Lane, event: RunnerSaid) -> Outcome:
    """Take in one line of the runner."""
    words = dict(event.words)
    kind = words.get("event")
    lane = replace(lane, runner=lane.runner.heard(words))
    if kind == "results":
        return _results(lane, words)
    if kind in ("error", "shadow"):
        return _witness(lane, words), []
    if kind in ("load_failed", "source_failed"):
        known = _some(words, "role", "bundle", "name", "reason")
        return lane, [Note("alarm" if kind == "source_failed" else "event", {"kind": kind, **known})]
    if kind == "loaded":
        known = _some(words, "role", "bundle", "version", "golden", "delegate")
        return lane, [Note("event", {"kind": "loaded", **known})]
    if kind in ("source_ended", "command_failed", "log", "input"):
        return lane, [Note("event", {"kind": kind, **_some(words, "name", "reason")})]
    return lane, []


def _results(lane: Lane, words: Mapping[str, Any]) -> Outcome:
    """Keep the results; those of a model on trial are evidence, too."""
    body = _some(words, "bundle", "first", "rows")
    seen = lane.update.attempt.evidence
    if _is_trial_of(lane, str(words.get("bundle", ""))):
        good = replace(seen, good=seen.good + len(words.get("rows", ())))
        lane = replace(lane, update=lane.update.trying(evidence=good))
    if lane.settings.noise_epsilon:  # single answers would say what the noise hides
        return lane, []
    return lane, [Note("result", body)]


def _witness(lane: Lane, words: Mapping[str, Any]) -> Lane:
    """Take errors, and the comparison with the previous model, as evidence of the trial."""
    is_error = words["event"] == "error"
    if not is_error and shadowing.is_of(lane.update.execution, words, lane.runner):
        seen = lane.update.attempt.evidence.shadowed(words)
        return replace(lane, update=lane.update.trying(evidence=seen))
    if not _is_trial_of(lane, str(words.get("bundle", "")) if is_error else lane.runner.active):
        return lane
    seen, execution = lane.update.attempt.evidence, lane.update.execution
    if is_error:
        seen = replace(seen, errors=seen.errors + 1)
    elif execution is not None and words.get("bundle") == execution.previous == lane.runner.shadow:
        seen = seen.shadowed(words)
    return replace(lane, update=lane.update.trying(evidence=seen))


def _is_trial_of(lane: Lane, bundle: str) -> bool:
    execution = lane.update.execution
    return execution is not None and execution.phase is Phase.HEALTH_CHECK and execution.job.bundle == bundle


def exited(lane: Lane, event: RunnerExited) -> Outcome:
    """The runner is gone: by our wish, or it is a crash: the accelerator's, or one against a trial."""
    was_wanted = lane.runner.stopping
    lane = replace(lane, runner=lane.runner.exited(event.at.mono))
    if was_wanted or event.code == 0:  # an application that embeds the runner may end when it likes
        return lane, []
    effects: list[Effect] = [Note("event", {"kind": "runner_exit", "code": event.code})]
    if reset.is_accelerated(lane):
        lane, climbed = reset.failed(lane, event)
        effects += climbed
    elif lane.runner.crashes == CRASH_ALARM:
        effects.append(Note("alarm", {"kind": "runner_crashes", "times": CRASH_ALARM, "code": event.code}))
    if reset.is_hang(lane, event.code):
        return reset.excused(lane, event.at), effects
    no_memory = event.code == KILLED and lane.settings.swap == "auto" and lane.plan.owns_runner
    changed, counted = update.crashed(lane.update, lane.slots, event.at, no_memory=no_memory)
    return replace(lane, update=changed), [*counted, *effects]
