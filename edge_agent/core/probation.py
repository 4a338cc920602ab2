# SPDX-License-Identifier: Apache-2.0
"""Has a newly activated model proved itself? Evidence in, a judgement out.

The rules fail early (as soon as the allowance for all asked inferences is used up) and pass late (only when
every rule is satisfied on at least the asked number), so one bad second cannot pass and a bad model does
not stay for the whole time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edge_contract.jobs import Probation

__all__ = ["Evidence", "judge"]


@dataclass(frozen=True)
class Evidence:
    """What was seen since the new model became active.

    Attributes:
        good: Inferences that gave a finite answer.
        errors: Inferences that failed or gave NaN.
        compared: Inputs that the old model answered too, ``agreed`` of them with the same class.
        unanswered: Inputs on which the old model failed; they count as looked at, for or against nobody.
        active_us, shadow_us: Sums of both models' latencies over the inputs that both answered.
        has_shadow: The old model runs beside, so agreement is judged.
        median_us: Median latency of the new model as the active one, 0 while unknown.
        baseline_us: The old model's, when it was the active one; 0 if unknown, and then latency is not judged. The
            shadow's own latency is no baseline: it runs second, on warm caches, and looks several times faster.
        crashes: Runner crashes so far.
        waited_s: Seconds since the probation began.
    """

    good: int = 0
    errors: int = 0
    compared: int = 0
    agreed: int = 0
    unanswered: int = 0
    active_us: float = 0.0
    shadow_us: float = 0.0
    has_shadow: bool = False
    median_us: float = 0.0
    baseline_us: float = 0.0
    crashes: int = 0
    waited_s: float = 0.0

    def shadowed(self, words: Mapping[str, Any]) -> "Evidence":
        """Take over the runner's running totals of the comparison."""
        return replace(
            self,
            compared=int(words.get("n", 0)),
            agreed=int(words.get("agree", 0)),
            unanswered=int(words.get("errors", 0)),
            active_us=float(words.get("active_us", 0.0)),
            shadow_us=float(words.get("shadow_us", 0.0)),
        )

    @property
    def latency_ratio(self) -> float:
        """New latency over old, 0 while unknown."""
        return self.median_us / self.baseline_us if self.baseline_us > 0 else 0.0

    def figures(self) -> dict[str, Any]:
        """Return the measured figures for the report."""
        figures: dict[str, Any] = {
            "inferences": self.good,
            "errors": self.errors,
            "crashes": self.crashes,
            "probation_s": round(self.waited_s, 3),
        }
        if self.median_us:
            figures["p50_us"] = self.median_us
        if self.latency_ratio:
            figures["latency_ratio"] = round(self.latency_ratio, 3)
        if self.compared:
            figures.update(compared=self.compared, agreement=round(self.agreed / self.compared, 4))
        return figures


def judge(rules: Probation, seen: Evidence) -> tuple[bool | None, str]:
    """Return True (healthy), False (unhealthy) or None (not yet known), and the reason in plain words.

    Example:
        >>> judge(Probation(inferences=10), Evidence(good=9)), judge(Probation(inferences=10), Evidence(good=10))[0]
        ((None, ''), True)
        >>> judge(Probation(inferences=100, max_error_rate=0.02), Evidence(good=40, errors=3))
        (False, '3 of 43 inferences failed, more than 2%')
    """
    if seen.crashes > rules.max_crashes:
        return False, f"the runner crashed {seen.crashes} times, more than {rules.max_crashes}"
    asked, total = rules.inferences, seen.good + seen.errors
    if seen.errors > rules.max_error_rate * max(asked, total):
        return False, f"{seen.errors} of {total} inferences failed, more than {rules.max_error_rate:.0%}"
    is_compared = seen.has_shadow and rules.min_agreement > 0
    refused = _agreement(rules, seen) if is_compared else ""
    refused = refused or _latency(rules, seen)
    if refused:
        return False, refused
    looked_at = not is_compared or seen.compared + seen.unanswered >= asked
    is_timed = rules.max_latency_ratio <= 0 or seen.baseline_us <= 0 or seen.median_us > 0
    if seen.good >= asked and looked_at and is_timed and seen.waited_s >= rules.min_s:
        return True, ""
    if seen.waited_s >= rules.timeout_s:
        compared = f", {seen.compared} compared" if is_compared else ""
        return False, f"only {seen.good} of {asked} inferences{compared} in {rules.timeout_s:g} s"
    return None, ""


def _agreement(rules: Probation, seen: Evidence) -> str:
    """Return why the comparison with the old model fails, or nothing."""
    asked = max(rules.inferences, seen.compared)
    if seen.compared - seen.agreed <= (1.0 - rules.min_agreement) * asked + 1e-9:
        return ""
    share = seen.agreed / seen.compared
    return f"agrees with the previous model on {share:.1%} of {seen.compared} inputs, below {rules.min_agreement:.0%}"


def _latency(rules: Probation, seen: Evidence) -> str:
    """Return why the latency fails, or nothing; a median of few inferences is not believed."""
    if rules.max_latency_ratio <= 0 or seen.latency_ratio <= rules.max_latency_ratio:
        return ""
    return f"{seen.latency_ratio:.2f} times the previous median latency, more than {rules.max_latency_ratio:g}"
