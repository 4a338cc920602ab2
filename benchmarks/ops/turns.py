# SPDX-License-Identifier: Apache-2.0
"""Inputs for a profile, and the runs with and without the profiler in turns."""

import gc
import hashlib
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import MeasurementError

__all__ = ["digest", "drawn", "in_turns"]

_BLOCK: Final = 10
_COLD: Final = 2


def drawn(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Return a fixed random input: all codes of an integer, or reals from 0 to 1; a free dimension is 1.

    Example:
        >>> drawn((0, 2), "int8").shape, drawn((3,), "float32").dtype.name
        ((1, 2), 'float32')
    """
    draw, sizes = np.random.default_rng(0), [size if size > 0 else 1 for size in shape]
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return draw.random(sizes).astype(kind)
    if kind.kind == "b":
        return draw.integers(0, 2, sizes).astype(kind)
    if kind.kind not in "iu":
        raise MeasurementError(f"an input of {dtype}: no value can be drawn for it")
    # Wider integers are indices more often than codes: 0 and 1 are valid nearly everywhere.
    limits = np.iinfo(kind) if kind.itemsize == 1 else None
    low, high = (limits.min, limits.max) if limits else (0, 1)
    return draw.integers(low, high, sizes, kind, endpoint=True)


def in_turns(plain: Callable[[], object], profiled: Callable[[], object], runs: int, drop: int) -> tuple[float, float]:
    """Run both ``drop + runs`` times in turns of ten; return the medians of one call each, microseconds.

    Single turns would show each way with caches that the other one has filled: a small model then takes half as long
    again. The first calls of a block and the first ``drop`` calls are not counted.
    """
    times: tuple[list[int], list[int]] = ([], [])
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        for first in range(0, drop + runs, _BLOCK):
            for call, kept in zip((plain, profiled), times, strict=True):
                for turn in range(first, min(first + _BLOCK, drop + runs)):
                    begin = perf_counter_ns()
                    call()
                    spent = perf_counter_ns() - begin
                    if turn >= drop and (turn - first >= _COLD or runs <= _BLOCK):
                        kept.append(spent)
    finally:
        if was_on:
            gc.enable()
    return round(median(times[0]) / 1000, 3), round(median(times[1]) / 1000, 3)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
