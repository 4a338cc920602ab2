# SPDX-License-Identifier: Apache-2.0
"""A trial beside the active model: the order's bundle answers the same inputs, and nothing is ever switched.

The active model keeps answering; how the candidate compares goes into the order's report. The rules are those of a
probation, read for a trial: ``inferences`` inputs compared, ``min_s`` at least, ``timeout_s`` at most.
"""

from collections.abc import Mapping
from typing import Any

from edge_agent.core.events import Slots
from edge_agent.core.execution import Execution
from edge_agent.core.probation import Evidence
from edge_agent.core.runner import Runner
from edge_agent.core.swap import STOP
from edge_contract.jobs import Probation
from edge_contract.states import Phase, PhaseEvent

__all__ = ["fact", "figures", "is_of", "is_trial", "judge", "refusal"]


def is_trial(execution: Execution) -> bool:
    """True if the order asks for a trial beside the active model."""
    return execution.job.kind == "shadow"


def refusal(execution: Execution, slots: Slots) -> str | None:
    """Return why the bundle cannot be tried here, None if it can or is not to be."""
    if not is_trial(execution):
        return None
    if not slots.active:
        return "there is no active model to compare with"
    if slots.active == execution.job.bundle:
        return "it is the active model"
    return "there is no memory for a second model beside the active one" if execution.swap == STOP else None


def is_of(execution: Execution | None, words: Mapping[str, Any], runner: Runner) -> bool:
    """True if the runner's totals compare the bundle on trial with the active model."""
    if execution is None or execution.phase is not Phase.SHADOWING:
        return False
    return bool(words.get("bundle") == execution.job.bundle == runner.shadow)


def fact(execution: Execution, seen: Evidence, runner: Runner) -> tuple[PhaseEvent, str] | None:
    """Return what the trial amounts to by now, None while it goes on."""
    failed = runner.failed.get(("shadow", execution.job.bundle))
    if failed is not None:
        return PhaseEvent.UNHEALTHY, failed
    healthy, reason = judge(execution.job.probation, seen)
    return None if healthy is None else (PhaseEvent.HEALTHY if healthy else PhaseEvent.UNHEALTHY, reason)


def _ratio(seen: Evidence) -> float:
    return seen.shadow_us / seen.active_us if seen.active_us > 0 else 0.0


def judge(rules: Probation, seen: Evidence) -> tuple[bool | None, str]:
    """Return True (fit), False (unfit) or None (not yet known), and the reason in plain words.

    Example:
        >>> judge(Probation(inferences=10), Evidence(compared=10, agreed=9, waited_s=3.0))
        (True, '')
        >>> judge(Probation(inferences=10), Evidence(compared=8, agreed=4, waited_s=3.0))
        (False, 'agrees with the active model on 50.0% of 8 inputs, below 80%')
    """
    if seen.crashes > rules.max_crashes:
        return False, f"the runner crashed {seen.crashes} times beside it, more than {rules.max_crashes}"
    total, asked = seen.compared + seen.unanswered, max(rules.inferences, seen.compared + seen.unanswered)
    if seen.unanswered > rules.max_error_rate * asked:
        return False, f"failed on {seen.unanswered} of {total} inputs, more than {rules.max_error_rate:.0%}"
    if seen.compared - seen.agreed > (1.0 - rules.min_agreement) * asked + 1e-9:
        share = seen.agreed / seen.compared
        words = f"agrees with the active model on {share:.1%} of {seen.compared} inputs"
        return False, f"{words}, below {rules.min_agreement:.0%}"
    if total >= rules.inferences and seen.compared and seen.waited_s >= rules.min_s:
        if 0 < rules.max_latency_ratio < _ratio(seen):
            return False, f"{_ratio(seen):.2f} times the active model's latency, more than {rules.max_latency_ratio:g}"
        return True, ""
    if seen.waited_s >= rules.timeout_s:
        return False, f"only {total} of {rules.inferences} inputs compared in {rules.timeout_s:g} s"
    return None, ""


def figures(seen: Evidence) -> dict[str, Any]:
    """Return the measured figures for the report."""
    found: dict[str, Any] = {
        "compared": seen.compared,
        "errors": seen.unanswered,
        "crashes": seen.crashes,
        "shadow_s": round(seen.waited_s, 3),
    }
    if seen.compared:
        found["agreement"] = round(seen.agreed / seen.compared, 4)
        found["shadow_mean_us"] = round(seen.shadow_us / seen.compared, 1)
        found["active_mean_us"] = round(seen.active_us / seen.compared, 1)
    if _ratio(seen):
        found["latency_ratio"] = round(_ratio(seen), 3)
    return found
