# SPDX-License-Identifier: Apache-2.0
"""Shape, type and range of the inputs: against the declared preprocessing, and against the training split."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.checks.asked import Schema
from compress.checks.outcome import FAILED, PASSED, CheckResult, Row
from compress.checks.perturb import kind_of
from compress.checks.subject import Subject
from compress.splits import NAMES, Split
from edge_contract.preprocess import Preprocessing

__all__ = ["range_of", "schema"]

_MOST_CHANNELS: Final = 64
_AT_ONCE: Final = 2**20
_MARGIN: Final = 1e-6
"""Of the training range: values that were rounded on the way through a file are not outside."""
_BYTE: Final = 1 / 64
"""A smaller scale than this expects bytes or larger integers, not reals in 0 to 1."""


def schema(check: Schema, subject: Subject) -> CheckResult:
    """Return the largest share of values that lie outside the range of the training split, of all splits but the test.

    Fails too where inputs are flat (all values equal), where splits differ in shape or type, where the preprocessing
    makes NaN or Inf of an input, and where the values cannot be what the preprocessing expects. ``facts`` holds the
    reference range: shape, type, and for each channel low, high, mean and standard deviation of the training inputs.
    """
    data = subject.data
    reference = range_of(data.train.x)
    rows = tuple(_row(check, name, getattr(data, name), reference) for name in NAMES if name != "test")
    faults = [*_faults(subject), *(f"{row.name}: {row.words}" for row in rows if row.verdict == FAILED)]
    figure = max(row.figure for row in rows)
    shape = "×".join(map(str, reference["shape"]))
    low, high = min(reference["low"]), max(reference["high"])
    words = (
        f"{reference['dtype']} {shape}, {low:g} to {high:g}; {figure:.2f} % of the values outside the training range"
    )
    words = "; ".join((*faults, words))
    return CheckResult(
        check.name, check.kind, not faults, figure, check.max_outside, "%", words, rows=rows, facts=reference
    )


def range_of(raw: NDArray[Any]) -> dict[str, Any]:
    """Return shape, type and range of raw inputs [N, …]: per channel, the last axis of images and series, or in one.

    Example:
        >>> range_of(np.array([[[0.0, 5.0], [2.0, 7.0]]]))["high"]
        [2.0, 7.0]
    """
    flat = _by_channel(raw)
    mean = flat.mean(axis=0, dtype=np.float64)
    square = sum(((part - mean) ** 2).sum(axis=0) for part in _parts(flat)) / len(flat)
    columns = {"low": flat.min(axis=0), "high": flat.max(axis=0), "mean": mean, "std": np.sqrt(square)}
    numbers = {key: [round(float(one), 6) for one in column] for key, column in columns.items()}
    return {"shape": [int(n) for n in raw.shape[1:]], "dtype": str(raw.dtype), "samples": len(raw), **numbers}


def _parts(flat: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield some values at a time: a large split in float64 would not fit into memory."""
    for start in range(0, len(flat), _AT_ONCE):
        yield flat[start : start + _AT_ONCE]


def _by_channel(raw: NDArray[Any]) -> NDArray[Any]:
    """Return values [M, channels]; grey images, clips of sound and wide tables are one channel."""
    has_channels = (raw.ndim == 4 or (raw.ndim == 3 and raw.dtype.kind == "f")) and raw.shape[-1] <= _MOST_CHANNELS
    return raw.reshape(-1, raw.shape[-1] if has_channels else 1)


def _row(check: Schema, name: str, split: Split, reference: dict[str, Any]) -> Row:
    outside, flat = _outside(split.x, reference), _flat(split.x)
    faults = []
    if outside > check.max_outside:
        faults.append(f"{outside:.2f} % of the values lie outside the training range, allowed {check.max_outside:g} %")
    if flat > check.max_flat:
        faults.append(f"{flat:.2f} % of the inputs are flat, allowed {check.max_flat:g} %")
    words = "; ".join(faults) or f"{outside:.2f} % outside, {flat:.2f} % flat"
    return Row(name, outside, None, None, len(split), FAILED if faults else PASSED, words)


def _outside(raw: NDArray[Any], reference: dict[str, Any]) -> float:
    low, high = (np.array(reference[key]) for key in ("low", "high"))
    room = _MARGIN * (high - low) + 1e-6
    values = _by_channel(raw)
    if values.shape[1] != len(low):
        return 100.0
    beyond = sum(int(((part < low - room) | (part > high + room)).sum()) for part in _parts(values))
    return 100 * beyond / values.size


def _flat(raw: NDArray[Any]) -> float:
    rows = raw.reshape(len(raw), -1)
    return 100 * float((rows.max(axis=1) == rows.min(axis=1)).mean())


def _faults(subject: Subject) -> Iterator[str]:
    data = subject.data
    kinds = {name: getattr(data, name).x.dtype for name in NAMES if name != "test"}
    if len(set(kinds.values())) > 1:
        yield "types differ: " + ", ".join(f"{name} {dtype}" for name, dtype in kinds.items())
    yield from _expected(data.train.x, subject.recipe.preprocess)
    for name in ("calibration", "validation"):
        x = subject.tensors(getattr(data, name))[0]
        bad = int((~x.isfinite()).reshape(len(x), -1).any(dim=1).sum())
        if bad:
            yield f"the preprocessing makes NaN or Inf of {bad} inputs of {name}"


def _expected(raw: NDArray[Any], preprocess: Preprocessing) -> Iterator[str]:
    """Say what about raw values cannot be meant: another scale than the preprocessing expects."""
    if raw.dtype.kind != "f":
        return
    low, high, kind = float(raw.min()), float(raw.max()), kind_of(preprocess)
    if kind == "image" and high <= 1 and preprocess.scale < _BYTE:
        yield f"values of {low:g} to {high:g} for a scale of {preprocess.scale:g}, which expects 0 to 255"
    if kind == "audio" and max(-low, high) > 1:
        yield f"sound of {low:g} to {high:g}; real clips lie in -1 to 1"
