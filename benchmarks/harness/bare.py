# SPDX-License-Identifier: Apache-2.0
"""A model file in a runtime with nothing around it: write the inputs, run, copy the outputs out.

The three are apart so that each can be timed: the invoke of ``benchmark_model`` and of ``onnxruntime_perf_test`` has
neither copy in it. Any number of inputs and outputs of any type; no description is needed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.plan import BenchPlan
from edge_contract.errors import RuntimeAdapterError

__all__ = ["Bare", "Slot", "refused", "sized"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Slot:
    """An input of a file: its name, its shape with batch (a free dimension is 1 here) and its type."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Bare:
    """A loaded file.

    Attributes:
        inputs: What it takes.
        place: Write the inputs, one array each, into the runtime's memory.
        invoke: Run once.
        fetch: Copy all outputs out.
        name, version: Of the runtime.
        providers: Asked for, and what the runtime says that it took.
        delegated: Share of the file's operators that a delegate took; None where only a profile tells.
        batch: Inputs in one run; smaller than asked for where the file has a fixed size.
        flags: Options that change what runs.
        arena_kb: Asks how much memory the runtime's tensors take; 0 where nobody can tell.
        native: The runtime's own object.
    """

    inputs: tuple[Slot, ...]
    place: Callable[[Sequence[Array]], object]
    invoke: Callable[[], object]
    fetch: Callable[[], list[Array]]
    name: str
    version: str
    providers: tuple[str, ...]
    delegated: float | None
    batch: int = 1
    flags: Mapping[str, Any] = field(default_factory=dict)
    arena_kb: Callable[[], int] = lambda: 0
    native: Any = None


def refused(plan: BenchPlan, version: str, error: Exception) -> RuntimeAdapterError:
    """Return the error that says that a runtime does not take a file."""
    reason = str(error).strip().splitlines()
    what = f"{plan.runtime} {version} refuses the file: {(reason or ['?'])[0][:300]}"
    return RuntimeAdapterError(what, where=plan.artefact, fix="try another --runtime, or export it again")


def sized(shape: Sequence[Any], batch: int) -> tuple[int, ...]:
    """Return a shape without free dimensions: the first one becomes the batch, others 1.

    Example:
        >>> sized([0, 3, "width", 8], 4), sized([1, 3], 4), sized([], 4)
        ((4, 3, 1, 8), (1, 3), ())
    """
    known = [size if isinstance(size, int | np.integer) and size > 0 else 0 for size in shape]
    return tuple(int(size) or (batch if place == 0 else 1) for place, size in enumerate(known))
