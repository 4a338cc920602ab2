# SPDX-License-Identifier: Apache-2.0
"""What the runner says, and that it ended: results to keep, evidence for a trial, alarms."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from edge_agent.core import reports, update
from edge_agent.core.effects import Effect, Note
from edge_agent.core.events import RunnerExited, RunnerSaid
from edge_agent.core.state import State
from edge_contract.states import Phase

__all__ = ["exited", "said"]

Outcome = tuple[State, list[Effect]]
CRASH_ALARM: Final = 5
"""So many crashes in a row outside a trial are an alarm."""


def _some(words: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: words[name] for name in names if name in words}


def said(state: State, event: RunnerSaid) -> Outcome:
    """Take in one line of the runner."""
    words = dict(event.words)
    kind = words.get("event")
    before = state.runner.runtime_version
    state = replace(state, runner=state.runner.heard(words))
    if kind == "results":
        return _results(state, words)
    if kind in ("error", "shadow"):
        return _witness(state, words), []
    if kind == "ready" and state.is_connected and state.runner.runtime_version != before:
        return state, [reports.birth(state, event.at)]
    if kind in ("load_failed", "source_failed"):
        known = _some(words, "role", "bundle", "name", "reason")
        return state, [Note("alarm" if kind == "source_failed" else "event", {"kind": kind, **known})]
    if kind == "loaded":
        known = _some(words, "role", "bundle", "version", "golden", "delegate")
        return state, [Note("event", {"kind": "loaded", **known})]
    if kind in ("source_ended", "command_failed", "log"):
        return state, [Note("event", {"kind": kind, **_some(words, "name", "reason")})]
    return state, []


def _results(state: State, words: Mapping[str, Any]) -> Outcome:
    """Keep the results; those of a model on trial are evidence, too."""
    body = _some(words, "bundle", "first", "rows")
    seen = state.update.attempt.evidence
    if _is_trial_of(state, str(words.get("bundle", ""))):
        good = replace(seen, good=seen.good + len(words.get("rows", ())))
        state = replace(state, update=state.update.trying(evidence=good))
    return state, [Note("result", body)]


def _witness(state: State, words: Mapping[str, Any]) -> State:
    """Take errors, and the comparison with the previous model, as evidence of the trial."""
    is_error = words["event"] == "error"
    if not _is_trial_of(state, str(words.get("bundle", "")) if is_error else state.runner.active):
        return state
    seen, execution = state.update.attempt.evidence, state.update.execution
    if is_error:
        seen = replace(seen, errors=seen.errors + 1)
    elif execution is not None and words.get("bundle") == execution.previous == state.runner.shadow:
        seen = seen.shadowed(words)
    return replace(state, update=state.update.trying(evidence=seen))


def _is_trial_of(state: State, bundle: str) -> bool:
    execution = state.update.execution
    return execution is not None and execution.phase is Phase.HEALTH_CHECK and execution.job.bundle == bundle


def exited(state: State, event: RunnerExited) -> Outcome:
    """The runner is gone: by our wish, or it is a crash that counts against a trial."""
    was_wanted = state.runner.stopping
    state = replace(state, runner=state.runner.exited(event.at.mono))
    if was_wanted:
        return state, []
    effects: list[Effect] = [Note("event", {"kind": "runner_exit", "code": event.code})]
    if state.runner.crashes == CRASH_ALARM:
        effects.append(Note("alarm", {"kind": "runner_crashes", "times": CRASH_ALARM, "code": event.code}))
    changed, counted = update.crashed(state.update, state.slots, event.at)
    return replace(state, update=changed), [*counted, *effects]
