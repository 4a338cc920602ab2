# SPDX-License-Identifier: Apache-2.0
"""When drift is worth a new training: the rule that turns persistent alarms into a ``RetrainSignal``. Pure.

``retrain.toml`` of the data folder holds the settings; a table ``[model.NAME]`` has its own for one model::

    level = "ALARM"        # or "WARN": what counts
    windows = 3            # so many judged windows of a device, one after the other
    devices = 3            # on so many devices of the cohort, or
    share = 0.25           # on this share of it, whichever is fewer; 0 turns either off
    cool_down_s = 86400    # after a signal of the model was made or closed
    enabled = true

A cohort are the devices that run one bundle. While a rollout of the model is under way, or a signal of it is open,
none is made: the first would be judged on a fleet that changes, the second is the same news again.
"""

import math
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_contract.errors import ContractError, UsageError
from edge_contract.fields import Fields
from edge_contract.findings import Level, Verdict
from edge_contract.retrain import RetrainSignal
from edge_contract.verdict import CUSUM_LIMIT

__all__ = ["Cohort", "RetrainRules", "Suspect", "is_due", "needed", "persists", "read_rules", "signal_of"]

STRONG_P: Final = 1e-6
_MOST_MOVED: Final = 12
_MOST_WINDOWS: Final = 50
_LEVELS: Final = (Level.WARN.value, Level.ALARM.value)
_RANK: Final[Mapping[Level, int]] = {Level.INSUFFICIENT: 0, Level.OK: 0, Level.WARN: 1, Level.ALARM: 2}


@dataclass(frozen=True)
class RetrainRules:
    """The settings; ``models`` has those of single models. See the module's text for the meaning of each."""

    level: Level = Level.ALARM
    windows: int = 3
    devices: int = 3
    share: float = 0.25
    cool_down_s: float = 86_400.0
    enabled: bool = True
    models: Mapping[str, "RetrainRules"] = field(default_factory=dict)

    def of(self, model: str) -> "RetrainRules":
        """Return the settings of one model."""
        return self.models.get(model, self)

    @property
    def words(self) -> str:
        """The rule in one line.

        Example:
            >>> RetrainRules(share=0.0).words
            '3 windows in a row at ALARM, on 3 devices of those that run the bundle'
        """
        counts = [f"{self.devices} devices"] if self.devices else []
        counts += [f"{100 * self.share:g} %"] if self.share else []
        where = f"on {' or '.join(counts)} of those that run the bundle"
        return f"{self.windows} windows in a row at {self.level.value}, {where}"


@dataclass(frozen=True)
class Suspect:
    """A device of a cohort whose alarm may persist: its newest judged windows of the bundle, oldest first."""

    device: str
    verdicts: Sequence[Verdict]


@dataclass(frozen=True)
class Cohort:
    """The devices that run one bundle of a model: how many there are, and whose alarm persists."""

    model: str
    bundle: str
    size: int
    suspects: tuple[Suspect, ...]


def read_rules(text: str, where: str) -> RetrainRules:
    r"""Return the settings of a file.

    Raises:
        UsageError: Not TOML, an unknown key, or a value out of its range; file and key are named.

    Example:
        >>> rules = read_rules("windows = 2\n[model.digits]\nshare = 0.5", "retrain.toml")
        >>> rules.of("digits").windows, rules.of("digits").share, rules.of("faces").share
        (2, 0.5, 0.25)
    """
    try:
        document = tomllib.loads(text)
        tables = document.pop("model", {})
        if not isinstance(tables, dict):
            raise UsageError("expected tables", where=f"{where}: model", fix="write [model.NAME]")
        common = _read(document, where, RetrainRules())
        models = {name: _read(table, f"{where} [model.{name}]", common) for name, table in tables.items()}
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"no TOML: {error}", where=where) from error
    except ContractError as error:
        raise UsageError(error.what, where=error.where, fix=error.fix) from error
    return replace(common, models=models)


def _read(table: Any, where: str, before: RetrainRules) -> RetrainRules:
    f = Fields(table, where)
    rules = RetrainRules(
        Level(f.text("level", before.level.value, among=_LEVELS)),
        f.integer("windows", before.windows, minimum=1),
        f.integer("devices", before.devices, minimum=0),
        f.number("share", before.share),
        f.number("cool_down_s", before.cool_down_s),
        f.flag("enabled", before.enabled),
    )
    if rest := sorted(f.rest()):
        fix = "use level, windows, devices, share, cool_down_s, enabled, [model.NAME]"
        raise UsageError(f"unknown key '{rest[0]}'", where=where, fix=fix)
    if rules.windows > _MOST_WINDOWS or not 0.0 <= rules.share <= 1.0 or rules.cool_down_s < 0.0:
        what = f"windows up to {_MOST_WINDOWS}, share from 0 to 1, cool_down_s from 0 on"
        raise UsageError("a value is out of its range", where=where, fix=what)
    if not rules.devices and not rules.share:
        raise UsageError("devices and share are both 0", where=where, fix="set one, or enabled = false")
    return rules


def needed(rules: RetrainRules, cohort: int) -> int:
    """Return on how many devices of a cohort the alarm has to persist.

    Example:
        >>> rules = RetrainRules(devices=3, share=0.25)
        >>> [needed(rules, size) for size in (1, 4, 5, 100)]
        [1, 1, 2, 3]
    """
    by_share = math.ceil(rules.share * cohort) if rules.share else cohort + 1
    return max(1, min(rules.devices or cohort + 1, by_share))


def persists(rules: RetrainRules, verdicts: Sequence[Verdict]) -> bool:
    """True if a device's newest judged windows all stand at the level; windows too small to judge do not count."""
    judged = [one for one in verdicts if one.level is not Level.INSUFFICIENT][-rules.windows :]
    return len(judged) == rules.windows and all(_RANK[one.level] >= _RANK[rules.level] for one in judged)


def is_due(rules: RetrainRules, cohort: Cohort, last_s: float, now: float) -> bool:
    """True if a cohort makes a signal now.

    Args:
        rules: Of its model.
        cohort: With those suspects alone whose alarm persists.
        last_s: When a signal of the model was made or closed last, seconds since 1970; 0 for never.
        now: Seconds since 1970; a clock that went back ends no cool-down.
    """
    is_calm = not last_s or now - last_s >= rules.cool_down_s
    return rules.enabled and is_calm and len(cohort.suspects) >= needed(rules, cohort.size)


def signal_of(rules: RetrainRules, cohort: Cohort, now: float) -> RetrainSignal:
    """Return what is said of a cohort whose alarms persist."""
    newest = {one.device: one.verdicts[-1] for one in sorted(cohort.suspects, key=lambda one: one.device)}
    since = [one.since_ms for one in newest.values() if one.since_ms]
    until = int(now * 1000)
    references = [one.reference_accuracy for one in newest.values()]
    evidence = {
        "rule": rules.words,
        "needed": needed(rules, cohort.size),
        "cohort": cohort.size,
        "reference_accuracy": sum(references) / len(references),
        "windows": [_row(device, one) for device, one in list(newest.items())[:_MOST_WINDOWS]],
    }
    return RetrainSignal(
        cohort.model,
        cohort.bundle,
        tuple(newest),
        min(since, default=until),
        until,
        _most_frequent(channel for one in newest.values() for channel in _moved_channels(one)),
        max(newest.values(), key=lambda one: one.n_eff).moved[:_MOST_MOVED],
        *_accuracy(tuple(newest.values())),
        evidence=evidence,
    )


def _row(device: str, verdict: Verdict) -> dict[str, Any]:
    return {
        "device": device,
        "window": verdict.window,
        "level": verdict.level.value,
        "reason": verdict.reason,
        "n": verdict.n,
        "n_eff": verdict.n_eff,
        "p_family": verdict.p_family,
        "since_ms": verdict.since_ms,
        "estimated_accuracy": verdict.estimated_accuracy,
        "valid": verdict.valid,
    }


def _moved_channels(verdict: Verdict) -> list[str]:
    return [c.name for c in verdict.channels if c.cusum >= CUSUM_LIMIT or (c.p is not None and c.p < STRONG_P)]


def _most_frequent(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for word, _ in Counter(words).most_common())


def _accuracy(verdicts: Sequence[Verdict]) -> tuple[float | None, float | None, float | None, bool]:
    """Return the means of estimate and bounds by samples: no more certain than the devices themselves are."""
    told = [one for one in verdicts if one.estimated_accuracy is not None and one.n]
    total = sum(one.n for one in told)
    if not total:
        return None, None, None, False
    means = [
        sum(one.n * (getattr(one, name) or 0.0) for one in told) / total
        for name in ("estimated_accuracy", "low", "high")
    ]
    return means[0], means[1], means[2], all(one.valid for one in verdicts)
