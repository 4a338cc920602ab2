# SPDX-License-Identifier: Apache-2.0
"""Promotion rules: what a version must show before it may stand in a release channel, judged in words and numbers.

A rule is read from ``rules.toml`` (``fleet.core.rules``). Each condition that it names becomes one outcome with
what was found, what was asked and a sentence. What is not known is not met: no number is ever guessed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleet.core.lineage import Accuracy
from fleet.core.rules import Rule

__all__ = ["Evidence", "Health", "Judgement", "Latency", "Outcome", "Parity", "judge"]


@dataclass(frozen=True)
class Parity:
    """What a bundle's ``parity.json`` says: pairs compared, those beyond their bound, and real-number fidelity."""

    pairs: int
    beyond: tuple[str, ...]
    max_steps: int
    relative_error: float | None
    worst: str = ""


@dataclass(frozen=True)
class Latency:
    """One measurement on a target, in milliseconds by quantile."""

    target: str
    source: str
    stage: str
    ms: Mapping[str, float]
    status: str = "valid"


@dataclass(frozen=True)
class Health:
    """How a version fares in the channel ``canary``.

    Attributes:
        since: When it entered, in seconds since 1970; None if it does not stand there.
        devices: How many devices run it.
        troubles: (when, what) of failed orders and of drift, newest first.
    """

    since: float | None
    devices: int
    troubles: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Evidence:
    """All that is known of a version when it is judged."""

    accuracy: Accuracy | None
    in_production: tuple[str, Accuracy | None] | None
    model_bytes: int
    bundle_bytes: int
    parity: Parity | None
    latencies: Sequence[Latency]
    health: Health
    approvals: Sequence[str]
    registered_by: str
    now: float
    waived: Sequence[str] = ()


@dataclass(frozen=True)
class Outcome:
    """One condition: whether it is met, the numbers, and a sentence."""

    rule: str
    met: bool
    found: float | None
    asked: float
    words: str

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Judgement:
    """All outcomes of one version for one channel."""

    channel: str
    automatic: bool
    outcomes: tuple[Outcome, ...]

    @property
    def met(self) -> bool:
        """Every condition is met."""
        return all(outcome.met for outcome in self.outcomes)

    @property
    def unmet(self) -> str:
        """The sentences of the conditions that are not met, in one line."""
        return "; ".join(outcome.words for outcome in self.outcomes if not outcome.met)

    def to_json(self) -> dict[str, Any]:
        outcomes = [outcome.to_json() for outcome in self.outcomes]
        return {"channel": self.channel, "automatic": self.automatic, "met": self.met, "outcomes": outcomes}


def judge(rule: Rule, evidence: Evidence) -> Judgement:
    """Return the outcome of each condition that a rule names."""
    outcomes = tuple(outcome for condition in _CONDITIONS for outcome in condition(rule, evidence))
    return Judgement(rule.channel, rule.automatic, outcomes)


def _said(rule: str, words: str, found: float | None, asked: float, *, met: bool) -> Outcome:
    return Outcome(rule, met, found, asked, f"{words}: {'met' if met else 'not met'}")


def _unknown(rule: str, words: str, asked: float) -> Outcome:
    return _said(rule, words, None, asked, met=False)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _accuracy(rule: Rule, evidence: Evidence) -> list[Outcome]:
    asked, score = rule.accuracy_at_least, evidence.accuracy
    if asked is None:
        return []
    if score is None:
        return [_unknown("accuracy_at_least", "accuracy is not in the bundle's lineage", asked)]
    met = score.low >= asked
    sign = "≥" if met else "<"
    words = (
        f"accuracy {_percent(score.low)} {sign} {_percent(asked)}"
        f" (lower end of the 95 % interval; {_percent(score.value)} of {score.samples} {score.split} samples)"
    )
    return [_said("accuracy_at_least", words, score.low, asked, met=met)]


def _drop(rule: Rule, evidence: Evidence) -> list[Outcome]:
    asked, name = rule.accuracy_drop_at_most, "accuracy_drop_at_most"
    if asked is None:
        return []
    if evidence.in_production is None:
        return [_said(name, "nothing is in production to be compared with", None, asked, met=True)]
    (version, before), score = evidence.in_production, evidence.accuracy
    if score is None or before is None:
        whose = "the bundle's" if score is None else f"version {version}'s"
        return [_unknown(name, f"accuracy is not in {whose} lineage", asked)]
    if score.metric != before.metric:
        metrics = f"'{score.metric}', not '{before.metric}'"
        what = f"accuracy was measured as {metrics} like that of version {version}"
        return [_unknown(name, what, asked)]
    if (score.data, score.split) != (before.data, before.split) and not rule.other_data:
        return [_unknown(name, f"accuracy was measured on other data than that of version {version}", asked)]
    return [_drop_outcome(score, before, version, asked)]


def _drop_outcome(score: Accuracy, before: Accuracy, version: str, asked: float) -> Outcome:
    drop = before.value - score.value
    met = drop <= asked
    # Newcombe's interval of a difference of two independent shares (1998, method 10), from both Wilson intervals.
    low = drop - ((before.value - before.low) ** 2 + (score.high - score.value) ** 2) ** 0.5
    high = drop + ((before.high - before.value) ** 2 + (score.value - score.low) ** 2) ** 0.5
    words = (
        f"accuracy {_percent(score.value)} against {_percent(before.value)} of version {version} in production:"
        f" drop {100 * drop:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
        f" {'≤' if met else '>'} {100 * asked:.1f} points"
    )
    return _said("accuracy_drop_at_most", words, drop, asked, met=met)


def _size(rule: Rule, evidence: Evidence) -> list[Outcome]:
    rows = (
        ("model_bytes_at_most", "largest model file", evidence.model_bytes, rule.model_bytes_at_most),
        ("bundle_bytes_at_most", "all files", evidence.bundle_bytes, rule.bundle_bytes_at_most),
    )
    return [
        _said(key, f"{what} {found} {'≤' if found <= asked else '>'} {asked} bytes", found, asked, met=found <= asked)
        for key, what, found, asked in rows
        if asked is not None
    ]


def _parity(rule: Rule, evidence: Evidence) -> list[Outcome]:
    if not rule.parity:
        return []
    found = evidence.parity
    if found is None:
        return [_unknown("parity", "the bundle has no parity.json", 1)]
    if found.beyond:
        words = f"{len(found.beyond)} of {found.pairs} pairs of runtimes are beyond their bound ({found.beyond[0]})"
        return [_said("parity", words, float(found.max_steps), 1, met=False)]
    if not found.pairs:
        near = "" if found.relative_error is None else f"; relative error {found.relative_error:.3g}"
        words = f"no two files of one plan to be compared integer by integer{near}"
        return [_said("parity", words, None, 1, met=found.relative_error is not None)]
    words = f"{found.pairs} pairs of runtimes are within their bounds, {found.max_steps} steps at most"
    return [_said("parity", words, float(found.max_steps), 1, met=True)]


def _fidelity(rule: Rule, evidence: Evidence) -> list[Outcome]:
    asked, found = rule.relative_error_at_most, evidence.parity
    if asked is None:
        return []
    if found is None or found.relative_error is None:
        return [_unknown("relative_error_at_most", "relative error is not in the bundle's parity.json", asked)]
    met = found.relative_error <= asked
    words = f"relative error {found.relative_error:.3g} {'≤' if met else '>'} {asked:g} ({found.worst})"
    return [_said("relative_error_at_most", words, found.relative_error, asked, met=met)]


def _latency(rule: Rule, evidence: Evidence) -> list[Outcome]:
    return [_latency_on(rule, evidence, target, asked) for target, asked in sorted(rule.latency_ms_at_most.items())]


def _latency_on(rule: Rule, evidence: Evidence, target: str, asked: float) -> Outcome:
    key, quantile = f"latency_ms_at_most.{target}", rule.latency_quantile
    measured = [one for one in evidence.latencies if one.target == target and quantile in one.ms]
    if not measured:
        return _unknown(key, f"no measurement of {quantile} on {target}; attach one", asked)
    valid = [one for one in measured if one.status == "valid"]
    if not valid:
        return _unknown(key, f"the measurement on {target} is {measured[0].status}", asked)
    # Of several measurements the slowest counts: a rule must not be met by measuring often enough.
    slowest = max(valid, key=lambda one: one.ms[quantile])
    found = slowest.ms[quantile]
    words = f"{slowest.stage} {quantile} on {target} {found:.2f} ms {'≤' if found <= asked else '>'} {asked:g} ms"
    return _said(key, words, found, asked, met=found <= asked)


def _canary(rule: Rule, evidence: Evidence) -> list[Outcome]:
    asked, health, key = rule.canary_healthy_hours, evidence.health, "canary_healthy_hours"
    if asked is None:
        return []
    if health.since is None:
        return [_unknown(key, f"not in channel canary yet ({asked:g} h asked)", asked)]
    if health.devices < rule.canary_devices:
        words = f"in canary, but {health.devices} of {rule.canary_devices} devices run it"
        return [_unknown(key, words, asked)]
    trouble = next(((when, what) for when, what in health.troubles if when >= health.since), None)
    hours = max(0.0, evidence.now - (trouble[0] if trouble else health.since)) / 3600
    since = f" since {trouble[1]}" if trouble else ""
    met = hours >= asked
    words = f"canary healthy for {hours:.1f} h{since} on {health.devices} devices {'≥' if met else '<'} {asked:g} h"
    return [_said(key, words, hours, asked, met=met)]


def _approvals(rule: Rule, evidence: Evidence) -> list[Outcome]:
    if not rule.approvals:
        return []
    names = sorted({name for name in evidence.approvals if name != evidence.registered_by})
    met = len(names) >= rule.approvals
    by = f" ({', '.join(names)})" if names else ""
    words = f"{len(names)} {'≥' if met else '<'} {rule.approvals} approvals{by}"
    return [_said("approvals", words, float(len(names)), rule.approvals, met=met)]


def _waived(rule: Rule, evidence: Evidence) -> list[Outcome]:
    if rule.waived is not False:
        return []
    count = len(evidence.waived)
    what = f"checks were waived ({', '.join(evidence.waived)})" if count else "no check was waived"
    return [_said("waived", what, float(count), 0, met=not count)]


_CONDITIONS: Final[tuple[Callable[[Rule, Evidence], list[Outcome]], ...]] = (
    _accuracy,
    _drop,
    _size,
    _parity,
    _fidelity,
    _latency,
    _canary,
    _approvals,
    _waived,
)
