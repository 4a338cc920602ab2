# SPDX-License-Identifier: Apache-2.0
"""What a gate says of a wave, and how the chance of a false stop is shared out among its measures."""

import math
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from fleet.core.gate_limits import GateLimits

__all__ = ["ALONE", "CRASH_SHARE", "MIN_CONTROLS", "Decision", "Finding", "WaveVerdict", "alpha_of_one"]

Decision = Literal["pass", "fail", "wait"]

MIN_CONTROLS: Final = 3
CRASH_SHARE: Final = 0.5
"""Part of alpha that crashes have: they are the worst, and an e-value asks for much."""
_OTHERS: Final = 6
ALONE: Final = 3.0
"""Without controls a change counts above so many times the margin of a proof."""


def alpha_of_one(limits: GateLimits) -> float:
    """Return the chance of a false stop that each measure but crashes has.

    Example:
        >>> round(alpha_of_one(GateLimits(alpha=0.012)), 6)
        0.001
    """
    return (1 - CRASH_SHARE) * limits.alpha / _OTHERS


@dataclass(frozen=True)
class Finding:
    """One measure's part of a verdict.

    Attributes:
        measure: crashes, errors, p50, p95, disagreement, drift or accuracy.
        decision: What it says by itself.
        estimate, low, high: The change with its always-valid interval; shares and relative growth as fractions.
        treated, controls: Devices behind it.
        words: One sentence.
    """

    measure: str
    decision: Decision
    estimate: float
    low: float
    high: float
    treated: int
    controls: int
    words: str

    def to_json(self) -> dict[str, Any]:
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in found.items()}


@dataclass(frozen=True)
class WaveVerdict:
    """What a gate says of a wave; ``evidence`` holds one finding for each measure that could be judged."""

    decision: Decision
    words: str
    evidence: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"decision": self.decision, "words": self.words, "evidence": [one.to_json() for one in self.evidence]}
