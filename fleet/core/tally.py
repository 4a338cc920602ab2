# SPDX-License-Identifier: Apache-2.0
"""Counts of a wave's executions by what they mean for it, so that nobody has to look at ten thousand of them.

Each execution lies in one bucket, which the database keeps as a column. The engine loads what may move and takes
the counts of the rest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from edge_contract.states import Phase, Status
from fleet.core.execution import Execution

__all__ = ["NEVER", "Tally", "bucket_of", "due_of", "tally", "words"]

NEVER: Final = 1e18
"""Later than any clock: an execution that only a message can move."""


def bucket_of(execution: Execution) -> str:
    """Return ``open``, ``retry`` (failed, and a further attempt follows), ``failed``, ``regressed`` (counts as failed),
    ``succeeded`` or ``excused``.
    """
    if execution.is_open:
        return "open"
    if execution.has_failed:
        return "retry" if execution.retry_at else "failed"
    if execution.status is Status.SUCCEEDED:
        return "regressed" if execution.regressed else "succeeded"
    return "excused"


def due_of(execution: Execution) -> float:
    """Return when the clock alone moves an execution, in seconds since 1970."""
    if execution.is_open:
        return min(execution.deadline, execution.cancel_by or NEVER)
    return execution.retry_at if execution.has_failed and execution.retry_at else NEVER


@dataclass(frozen=True)
class Tally:
    """How many executions of a wave lie in each bucket."""

    open: int = 0
    retry: int = 0
    failed: int = 0
    regressed: int = 0
    succeeded: int = 0
    excused: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.open + self.retry + self.finished + self.excused

    @property
    def moving(self) -> int:
        """Those without a result yet."""
        return self.open + self.retry

    @property
    def bad(self) -> int:
        """Those that count against the rollout."""
        return self.failed + self.regressed

    @property
    def finished(self) -> int:
        """Those that a share of failures is taken of."""
        return self.succeeded + self.bad

    def add(self, bucket: str, count: int = 1) -> "Tally":
        """Return the tally with more in a bucket.

        Example:
            >>> Tally(succeeded=3).add("failed").finished
            4
        """
        return replace(self, **{bucket: getattr(self, bucket) + count})

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.open + other.open,
            self.retry + other.retry,
            self.failed + other.failed,
            self.regressed + other.regressed,
            self.succeeded + other.succeeded,
            self.excused + other.excused,
        )


def tally(executions: Iterable[Execution], rest: Mapping[int, Tally]) -> dict[int, Tally]:
    """Return wave → counts of these executions and of the rest."""
    counted: dict[int, dict[str, int]] = {}
    for execution in executions:
        of_wave = counted.setdefault(execution.wave, {})
        bucket = bucket_of(execution)
        of_wave[bucket] = of_wave.get(bucket, 0) + 1
    found = dict(rest)
    for wave, buckets in counted.items():
        found[wave] = found.get(wave, Tally()) + Tally(**buckets)
    return found


def words(execution: Execution) -> str:
    """Return what became of a failed execution, in words.

    Example:
        >>> words(Execution("j", "r", 1, 0, "pi", "m", "b", Status.TIMED_OUT, Phase.QUEUED, 0.0))
        'timed out'
    """
    if execution.phase is Phase.ROLLED_BACK:
        return "rolled back"
    if execution.phase is Phase.ROLLBACK_FAILED:
        return "could not roll back"
    return execution.status.value.lower().replace("_", " ")
