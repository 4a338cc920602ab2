# SPDX-License-Identifier: Apache-2.0
"""Gates of the processes: answers, memory, number of launches and runs, warm-up. Standard library only."""

from collections.abc import Iterator
from typing import Final

from benchmarks.gates.finding import Finding
from benchmarks.record import Measurement

__all__ = ["answers", "counts", "memory", "warm"]

ENOUGH_LAUNCHES: Final = 10
FEWEST_LAUNCHES: Final = 3
FEWEST_RUNS: Final = 30


def answers(measurement: Measurement) -> Iterator[Finding]:
    """Golden inputs that gave other answers than the bundle says."""
    wrong = [one.number for one in measurement.launches if one.golden == "differs"]
    if wrong:
        words = (
            f"golden inputs gave other answers than the bundle says in {len(wrong)} of {len(measurement.launches)} "
            "launches; the times are those of a model that computes something else: build the bundle for this runtime"
        )
        yield Finding("golden", "invalid", words)


def memory(measurement: Measurement) -> Iterator[Finding]:
    """Pages that were read from disk, or memory that was swapped, while it was timed."""
    major = sum(one.faults.get("major", 0) for one in measurement.launches)
    swapped = max((one.faults.get("swap_kb", 0) for one in measurement.launches), default=0)
    advice = "close other programs, or measure a smaller model on this board"
    if major:
        yield Finding(
            "memory", "invalid", f"{major} major page faults while it was timed: the disk was timed, too; {advice}"
        )
    if swapped > 0:
        yield Finding("memory", "invalid", f"{swapped} kB of the process lay in swap while it was timed; {advice}")


def counts(measurement: Measurement) -> Iterator[Finding]:
    """Too few launches or runs for what is printed; launches that failed."""
    plan, launches = measurement.plan, measurement.launches
    runs = sum(one.runs for one in launches)
    if measurement.failed:
        made = measurement.failed + len(launches)
        words = f"{measurement.failed} of {made} launches failed and do not count; the notes say why"
        yield Finding("failed", "flag", words)
    is_windows = plan.profile == "mlperf-tiny-like"
    if plan.scenario != "sustained" and len(launches) < FEWEST_LAUNCHES:
        words = (
            f"{len(launches)} launches: what the next process would take is unknown; make at least {FEWEST_LAUNCHES}"
        )
        yield Finding("few", "invalid", words)
    elif runs < FEWEST_RUNS and not is_windows:
        yield Finding(
            "few", "invalid", f"{runs} runs in all; measure at least {FEWEST_RUNS}, and 100 in each launch for p90"
        )
    elif plan.scenario != "sustained" and len(launches) < ENOUGH_LAUNCHES and not is_windows:
        words = f"{len(launches)} launches: the interval is wide; the default is {ENOUGH_LAUNCHES}"
        yield Finding("few", "flag", words)


def warm(measurement: Measurement) -> Iterator[Finding]:
    """Launches whose warm-up ended at its cap and not because the times stood still."""
    cold = sum(not one.steady for one in measurement.launches)
    if cold:
        words = f"{cold} of {len(measurement.launches)} launches never became steady; look at the run sequence"
        yield Finding("warm-up", "flag", words)
