# SPDX-License-Identifier: Apache-2.0
"""All gates, one after the other."""

from typing import Final

from benchmarks.gates import board, process, times
from benchmarks.gates.finding import STATUSES, Finding
from benchmarks.record import Measurement

__all__ = ["check"]

_GATES: Final = (
    board.throttled,
    board.clock,
    board.temperature,
    board.governor,
    board.company,
    board.power_sensor,
    process.answers,
    process.memory,
    process.counts,
    process.warm,
    times.trends,
    times.modes,
)
_LOOKED_AT: Final = frozenset({"throttled", "clock", "temperature", "trend"})
"""What heat does to a board is the question of ``sustained``, and no fault of its answer."""


def check(measurement: Measurement) -> tuple[Finding, ...]:
    """Return what the gates found, the worst first; nothing: the measurement may be believed.

    Args:
        measurement: At least one launch.
    """
    if not measurement.launches:
        return (Finding("launches", "invalid", "no launch came to its end; its notes say why"),)
    found = [one for gate in _GATES for one in gate(measurement)]
    if measurement.plan.scenario == "sustained":
        found = [Finding(one.kind, "flag", one.words) if one.kind in _LOOKED_AT else one for one in found]
    return tuple(sorted(found, key=lambda one: -STATUSES.index(one.status)))
