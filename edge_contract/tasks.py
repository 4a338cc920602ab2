# SPDX-License-Identifier: Apache-2.0
"""What is counted for each task beside the counters that all tasks share, and the channels that it is judged by.

Every task gives one number per inference, its *signal*, which takes the place of a classifier's energy: its histogram,
its moments and its correlation in time are counted by the same code. What has no place there are *tables* of integers:

======== ======================== =====================================================
task     signal                   tables
======== ======================== =====================================================
classify energy of the logits     none
detect   score of the best box    boxes per frame, scores, areas and classes of all boxes
regress  the output, or the mean  each output (32 bins of one, 16 of each up to eight)
anomaly  log of the error         the upper tail of the error (8 bins)
segment  mean confidence          area of each class (sums of shares)
======== ======================== =====================================================
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from edge_contract.errors import SummaryError

__all__ = [
    "CLASSIFY",
    "MAX_OUTPUTS",
    "MAX_SENSORS",
    "TABLES",
    "TAIL_BINS",
    "TASKS",
    "WIDE_BINS",
    "Form",
    "channels_of",
    "task_of",
]

CLASSIFY: Final = "classify"
TASKS: Final = (CLASSIFY, "detect", "regress", "anomaly", "segment")
"""In the order of their codes on the wire."""
MAX_OUTPUTS: Final = 8
MAX_SENSORS: Final = 16
TAIL_BINS: Final = 8
WIDE_BINS: Final = 32
_BINS: Final = 16
_MAX_SLOTS: Final = 64
TABLES: Final = {
    CLASSIFY: (),
    "detect": ("boxes", "scores", "areas", "kinds"),
    "regress": ("outputs",) * MAX_OUTPUTS,
    "anomaly": ("tail",),
    "segment": ("areas",),
}
"""Names of the tables of each task; a regression has one for each output."""
_MANIFEST: Final = {
    "classification": CLASSIFY,
    "detection": "detect",
    "regression": "regress",
    "other": "regress",
    "anomaly": "anomaly",
    "segmentation": "segment",
}
_CHANNELS: Final = {
    CLASSIFY: ("class", "class×confidence", "max-prob", "energy", "embedding", "input", "latency"),
    "detect": ("score", "boxes", "class", "area", "embedding", "input", "latency"),
    "regress": ("output", "embedding", "input", "latency"),
    "anomaly": ("error", "embedding", "input", "latency"),
    "segment": ("confidence", "area", "input", "latency"),
}


def channels_of(task: str) -> tuple[str, ...]:
    """Return the channels that a task is judged by, at most seven, in the order of the CUSUM section.

    Example:
        >>> channels_of("anomaly")
        ('error', 'embedding', 'input', 'latency')
    """
    return _CHANNELS[task]


def task_of(manifest_task: str) -> str:
    """Return how a manifest's task is counted.

    Example:
        >>> task_of("detection"), task_of("other")
        ('detect', 'regress')
    """
    return _MANIFEST[manifest_task]


class Form(NamedTuple):
    """What counters hold beside the common ones; only counters of one form add up.

    Attributes:
        task: One of TASKS.
        tables: Size of each table; none where the profile has no reference.
        sensors: Sensors whose means are counted.
    """

    task: str = CLASSIFY
    tables: tuple[int, ...] = ()
    sensors: int = 0

    @property
    def size(self) -> int:
        """How many integers it holds."""
        return sum(self.tables) + 2 * self.sensors

    def check(self) -> "Form":
        """Return the form itself.

        Raises:
            SummaryError: An unknown task, or tables that the task does not have.
        """
        if self.task not in TASKS:
            raise SummaryError(f"unknown task {self.task!r}", where="counters", fix="update the server")
        if not _fits(self.task, self.tables):
            raise SummaryError(f"tables of {list(self.tables)} for task '{self.task}'", where="counters")
        if not 0 <= self.sensors <= MAX_SENSORS:
            raise SummaryError(f"{self.sensors} sensors, not 0 .. {MAX_SENSORS}", where="counters")
        return self

    def cut(self, flat: Sequence[int]) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
        """Return the tables and the sensors in a flat list of ``size`` integers.

        Example:
            >>> Form("anomaly", (2,), 1).cut([1, 2, 3, 4])
            (((1, 2),), (3, 4))
        """
        tables, at = [], 0
        for size in self.tables:
            tables.append(tuple(flat[at : at + size]))
            at += size
        return tuple(tables), tuple(flat[at:])


def _fits(task: str, sizes: tuple[int, ...]) -> bool:
    if not sizes:
        return True
    match task:
        case "detect":
            return sizes[:3] == (_BINS,) * 3 and len(sizes) == 4 and 1 <= sizes[3] <= _MAX_SLOTS
        case "regress":
            return sizes == (WIDE_BINS,) or (2 <= len(sizes) <= MAX_OUTPUTS and set(sizes) == {_BINS})
        case "anomaly":
            return sizes == (TAIL_BINS,)
        case "segment":
            return len(sizes) == 1 and 1 <= sizes[0] <= _MAX_SLOTS
    return False
