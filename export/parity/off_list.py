# SPDX-License-Identifier: Apache-2.0
"""Which operations of a plan are not on the identity list, and by how much the runtimes part there.

An operation is on the list if every kernel that errs by less than its arithmetic allows gives one integer
(``compress.quantize.semantics``). Off the list are

- *wide* layers: float32 sums depend on their order, and no two runtimes sum in one order;
- additions, means, products, added constants and sigmoids whose exact result can lie next to a tie, k + 1/2: scales
  that others decide, or that were left as observed.

Which of them lie next to a tie is not guessed: all their results are enumerated, 65 536 of a sum of two codes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.quantize.plan import WIDE, Operation, QuantizationPlan
from compress.quantize.semantics import HIGH, LOW

__all__ = ["OffList", "off_list", "tie_margin"]

_FIXED_POINT_ERROR: Final = 2.0**-11
"""XNNPACK adds in 21-bit fixed point, and errs by 2**-12 of a step: twice that is safe."""
_FLOAT_ERROR: Final = 2.0**-14
"""Float32 arithmetic on results below 256 steps errs by some 2**-17 of a step."""
_MARGINS: Final = {
    "add": _FIXED_POINT_ERROR,
    "add_constant": _FIXED_POINT_ERROR,
    "sigmoid": _FIXED_POINT_ERROR,
    "mul": _FLOAT_ERROR,
    "global_pool": _FLOAT_ERROR,
}

Steps = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class OffList:
    """One operation that runtimes may compute otherwise by a step, and what was seen of it.

    Attributes:
        name, kind: As in the plan.
        reason: Why it is not on the identity list.
        values: Codes compared of each runtime.
        alone: Runtime → (differing codes, largest step) against the plan's arithmetic, given that runtime's own inputs.
    """

    name: str
    kind: str
    reason: str
    values: int
    alone: Mapping[str, tuple[int, int]]

    @property
    def max_steps(self) -> int:
        """The measured bound: the most that any runtime differs by."""
        return max((steps for _, steps in self.alone.values()), default=0)

    def to_json(self) -> dict[str, Any]:
        seen = {runtime: {"differing": n, "max_steps": steps} for runtime, (n, steps) in self.alone.items()}
        facts = {"name": self.name, "kind": self.kind, "reason": self.reason, "values": self.values}
        return {**facts, "max_steps": self.max_steps, "alone": seen}


def off_list(plan: QuantizationPlan) -> dict[str, str]:
    """Return operation → reason of all that are not on the identity list; empty for most plans."""
    found = {}
    for op in plan.operations:
        if op.kind in WIDE.values():
            found[op.name] = "computed in float32"
        elif op.kind in _MARGINS and tie_margin(plan, op) < _MARGINS[op.kind]:
            found[op.name] = "its results may lie next to a tie"
    return found


def tie_margin(plan: QuantizationPlan, op: Operation) -> float:
    """Return how near the closest possible result of an operation lies to a tie, in steps of its output.

    Args:
        plan: With the scales.
        op: An add, add_constant, mul, sigmoid or global_pool.
    """
    target = plan.activations[op.output]
    steps = _RESULTS[op.kind](plan, op) / target.scale
    # A sum that can tie at all does so for some codes; those that saturate are no results.
    kept = steps[(steps > LOW - target.zero_point - 1) & (steps < HIGH - target.zero_point + 1)]
    return float(np.abs(kept - np.floor(kept) - 0.5).min(initial=0.5))


def _reals(plan: QuantizationPlan, names: Sequence[str]) -> list[Steps]:
    """Return all 256 real numbers of each named tensor."""
    specs = [plan.activations[name] for name in names]
    return [(np.arange(LOW, HIGH + 1) - spec.zero_point) * spec.scale for spec in specs]


def _sums(plan: QuantizationPlan, op: Operation) -> Steps:
    first, second = _reals(plan, op.inputs)
    return np.add.outer(first, second).ravel()


def _products(plan: QuantizationPlan, op: Operation) -> Steps:
    first, second = _reals(plan, op.inputs)
    return np.multiply.outer(first, second).ravel()


def _shifted(plan: QuantizationPlan, op: Operation) -> Steps:
    constant = plan.constants[op.weight]
    return _reals(plan, op.inputs)[0] + float(constant.codes[0]) * float(constant.scales[0])


def _sigmoids(plan: QuantizationPlan, op: Operation) -> Steps:
    found: Steps = 1.0 / (1.0 + np.exp(-_reals(plan, op.inputs)[0]))
    return found


def _means(plan: QuantizationPlan, op: Operation) -> Steps:
    spec = plan.activations[op.inputs[0]]
    count = int(np.prod(spec.shape[1:]))
    ends = ((code - spec.zero_point) * count for code in (LOW, HIGH))
    lowest, highest = ends
    return np.arange(lowest, highest + 1) * (spec.scale / count)


_RESULTS: Final[Mapping[str, Callable[[QuantizationPlan, Operation], Steps]]] = {
    "add": _sums,
    "add_constant": _shifted,
    "mul": _products,
    "sigmoid": _sigmoids,
    "global_pool": _means,
}
