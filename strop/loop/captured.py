# SPDX-License-Identifier: Apache-2.0
"""Is a captured set fit to learn from: enough of it, unlike each other, and like the drift that asked for it?

What cannot be seen here: a set that looks like the drift in every channel and is wrong all the same, and a teacher that
is sure and wrong. The gates after the training (``strop.loop.training``), the shadow and the canary come after this.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.sources.captured import Captured, read_captured
from edge_contract.counts import Counters
from edge_contract.errors import DataError
from edge_contract.profile import ReferenceProfile
from edge_contract.statistics import Evidence
from strop.loop.likeness import strangers, two_sample
from strop.loop.present import Present, open_present

__all__ = ["Examined", "examine", "open_present"]

MOST_COPIES: Final = 0.5
"""Share of the inputs that may be like another one."""
MOST_OF_ONE: Final = 0.8
"""Share of the inputs that one device of several may have sent."""
FEWEST_DEVICES: Final = 3
"""A cohort from which on one device may not speak for all."""
LEAST_SURE: Final = 0.8
"""The teacher's mean confidence, as a share of its usual one."""
FEWEST_COUNTED: Final = 64
"""Inputs from which on counters can be compared."""
_CELLS: Final = 6  # of each axis of an input's sketch
_ALIKE: Final = 1 / 32  # of the range: the most by which a cell of two inputs that look alike differs
_MOST_SKETCHED: Final = 4000
_BY_ANSWER: Final = frozenset({"low confidence", "disagreeing"})  # reasons that choose by what the model answered

Raw = NDArray[Any]


@dataclass(frozen=True)
class Examined:
    """A captured set that may be learned from.

    Attributes:
        samples: Inputs in it.
        distinct: Of these, unlike each other.
        devices: Device → its inputs, the most first.
        words: What was found, a line each.
        counters: The set as the device would count it; None where nothing was compared.
        sure: Mean confidence of the teacher; None where it was not asked.
    """

    samples: int
    distinct: int
    devices: dict[str, int]
    words: tuple[str, ...]
    counters: Counters | None = None
    sure: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what a run's record keeps; the counters stay out of it."""
        return {
            "samples": self.samples,
            "distinct": self.distinct,
            "devices": self.devices,
            "words": list(self.words),
            "sure": self.sure,
        }


def examine(
    folder: Path,
    profile: ReferenceProfile | None,
    *,
    minimum: int,
    present: Present | None = None,
    drifted: Counters | None = None,
    cohort: int = 0,
) -> Examined:
    """Return what a captured set is like, or refuse it.

    Args:
        folder: Captured inputs, an ``.npz`` of ``strop fleet capture export`` or a folder of such.
        profile: Of the bundle that the devices run; None compares no counters.
        minimum: Inputs that must be there, and be unlike each other.
        present: The model that is shipped and its teacher (``open_present``); None asks neither.
        drifted: Counters of the windows that alarmed, added up; None compares no counters.
        cohort: Devices that were asked; 0 takes those that answered.

    Raises:
        DataError: Too few, NaN, of another shape or type than the model's data, mostly alike, from one device where
            there are many, unlike the drifted windows (poisoned), or nothing that the teacher knows. Says why, with
            numbers, and what to do.
        ProfileError: The profile is another model's.
    """
    found = read_captured(folder)
    where = str(folder)
    _check_form(found, minimum, present, where)
    distinct = _check_alike(found, minimum, where)
    devices = found.devices
    _check_devices(devices, cohort, where)
    words = [f"{len(found)} inputs, {distinct} unlike each other, of {max(1, len(devices))} devices"]
    counters = sure = None
    if present is not None:
        if profile is not None and drifted is not None:
            counters, words = (
                _check_drift(found, profile, present, drifted, where),
                [*words, "like the drifted windows"],
            )
        sure = _check_teacher(found, present, where)
        words.append(f"the teacher is {100 * sure:.0f} % sure, {100 * present.usual:.0f} % on its old data")
    return Examined(len(found), distinct, devices, tuple(words), counters, sure)


def _check_form(found: Captured, minimum: int, present: Present | None, where: str) -> None:
    x = found.x
    if len(x) < minimum:
        fix = "capture for longer, or from more devices"
        raise DataError(f"{len(x)} captured inputs, {minimum} are needed", where=where, fix=fix)
    if x.dtype.kind not in "uif":
        raise DataError(f"inputs of type {x.dtype}", where=where, fix="capture numbers")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        bad = int((~np.isfinite(x.reshape(len(x), -1))).any(axis=1).sum())
        raise DataError(f"{bad} inputs hold NaN or Inf", where=where, fix="look at the sensor; leave these out")
    if present is not None and (x.shape[1:] != present.shape or str(x.dtype) != present.dtype):
        what = f"inputs {x.dtype} {list(x.shape[1:])}, the model's data are {present.dtype} {list(present.shape)}"
        raise DataError(what, where=where, fix="capture from devices of this model, with its own source")


def _check_alike(found: Captured, minimum: int, where: str) -> int:
    """Return how many inputs are unlike each other; of a very large set this is told from a part of it."""
    few = found.x[:: max(1, len(found) // _MOST_SKETCHED)]
    sizes = _groups(_sketches(few))
    distinct = round(len(found) * len(sizes) / len(few))
    if len(sizes) == 1:
        fix = "look at the camera: it is covered, or frozen"
        raise DataError(f"all {len(found)} inputs are alike", where=where, fix=fix)
    if distinct < max(minimum, (1 - MOST_COPIES) * len(found)):
        what = f"only {distinct} of {len(found)} inputs are unlike each other, {max(sizes)} are like one of them"
        fix = f"capture at longer intervals or from more devices, until {minimum} and half of all differ"
        raise DataError(what, where=where, fix=fix)
    return distinct


def _sketches(x: Raw) -> Raw:
    """Return a small picture of each input in shares of the range of its type, or of all of them [N, cells]."""
    flat = x.reshape(len(x), x.shape[1] if x.ndim > 1 else 1, -1)
    low, high = (0.0, 255.0) if x.dtype == np.uint8 else (float(x.min()), float(x.max()))
    rows = [part.mean(axis=1, dtype=np.float32) for part in np.array_split(flat, min(_CELLS, flat.shape[1]), axis=1)]
    cells = [part.mean(axis=1) for row in rows for part in np.array_split(row, min(_CELLS, row.shape[1]), axis=1)]
    found: Raw = (np.stack(cells, axis=1) - low) / max(high - low, 1e-12)
    return found


def _groups(sketches: Raw) -> list[int]:
    """Return the sizes of groups of inputs that look like the first one of their group."""
    left, sizes = sketches, list[int]()
    while len(left):
        alike = np.abs(left - left[0]).max(axis=1) < _ALIKE
        sizes.append(int(alike.sum()))
        left = left[~alike]
    return sizes


def _check_devices(devices: dict[str, int], cohort: int, where: str) -> None:
    asked = max(cohort, len(devices))
    if asked < FEWEST_DEVICES or not devices:
        return
    name, most = next(iter(devices.items()))
    total = sum(devices.values())
    if most > MOST_OF_ONE * total:
        what = f"{most} of {total} inputs are of one device, '{name}', of {asked} that were asked"
        fix = f"let others answer, or lower --max-samples: at most {MOST_OF_ONE:.0%} may be of one"
        raise DataError(what, where=where, fix=fix)


def _check_drift(
    found: Captured, profile: ReferenceProfile, present: Present, drifted: Counters, where: str
) -> Counters:
    """Return the set's counters, if it looks as the windows did that alarmed."""
    free = np.array([one.get("why") not in _BY_ANSWER for one in found.facts])
    enough = int(free.sum()) >= FEWEST_COUNTED
    counters = present.count(found.x[free] if enough else found.x, profile)
    unlike = strangers(two_sample(counters, drifted, inputs_only=not enough))
    if unlike:
        calm = not strangers(two_sample(counters, profile.counters, inputs_only=not enough))
        like = "they look as the reference does, without any drift" if calm else "they may be poisoned"
        what = f"the captured inputs are not what drifted ({_told(unlike)}): {like}"
        fix = "look at them, and capture again while the alarm stands (--drifted)"
        raise DataError(what, where=where, fix=fix)
    return counters


def _told(unlike: dict[str, Evidence]) -> str:
    return ", ".join(f"{name}: effect {one.effect:.2f}, p {one.p:.1g}" for name, one in list(unlike.items())[:3])


def _check_teacher(found: Captured, present: Present, where: str) -> float:
    """Return the teacher's mean confidence, if it is not far below its usual one."""
    sure = float(present.sure(found.x).mean())
    if sure < LEAST_SURE * present.usual:
        shares = f"{100 * sure:.0f} % sure of the captured inputs, {100 * present.usual:.0f} % of its old data"
        fix = "train the teacher on such inputs first, or give them to a person"
        raise DataError(f"the teacher is {shares}: it does not know them either", where=where, fix=fix)
    return sure
