# SPDX-License-Identifier: Apache-2.0
"""Do all runtimes compute the integers that were evaluated? Every pair is compared, code by code.

The bound of a pair comes from what computes it. ONNX Runtime, LiteRT with XNNPACK and PyTorch's integer evaluation
round alike on a plan (``compress.quantize.semantics``): not one integer may differ. The built-in kernels of
tflite-runtime, and of LiteRT without XNNPACK, round twice in fixed point: in each layer about a tenth of a percent of
the codes moves up by one step, so that the outputs differ by a step or two; the classes must still be the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from compress.quantize import integer
from compress.quantize.plan import QuantizationPlan
from edge_contract.errors import ParityError
from edge_contract.manifest import Artefact
from export.runtimes import Execution, python_for, run

__all__ = ["EXACT_DELEGATES", "PYTORCH", "Bound", "Pair", "ParityReport", "check", "compare", "evaluate", "execute"]

PYTORCH: Final = "pytorch"
EXACT_DELEGATES: Final = ("xnnpack", "cpu", "plan")  # LiteRT's, ONNX Runtime's, PyTorch's


@dataclass(frozen=True)
class Bound:
    """How far two runtimes may differ: by at most ``steps``, and with at least a share of ``same_class``."""

    steps: int
    same_class: float


IDENTICAL: Final = Bound(0, 1.0)
FIXED_POINT: Final = Bound(4, 0.98)  # seen on 28 layers: 3 steps, all classes equal


@dataclass(frozen=True)
class Pair:
    """Two runtimes on the same inputs.

    Attributes:
        first, second: Their names.
        values: Integers compared, over all outputs.
        differing: How many are not equal.
        max_steps: The largest difference.
        same_class: Share of inputs with the same largest logit.
        by_output: Role → (values, differing, max_steps).
        bound: What was allowed.
    """

    first: str
    second: str
    values: int
    differing: int
    max_steps: int
    same_class: float
    by_output: Mapping[str, tuple[int, int, int]]
    bound: Bound

    @property
    def is_within(self) -> bool:
        """The difference lies within the bound."""
        return self.max_steps <= self.bound.steps and self.same_class >= self.bound.same_class

    def to_json(self) -> dict[str, Any]:
        outputs = {
            r: dict(zip(("values", "differing", "max_steps"), n, strict=True)) for r, n in self.by_output.items()
        }
        return {
            "first": self.first,
            "second": self.second,
            "values": self.values,
            "differing": self.differing,
            "max_steps": self.max_steps,
            "same_class": self.same_class,
            "by_output": outputs,
            "bound": {"steps": self.bound.steps, "same_class": self.bound.same_class},
        }


@dataclass(frozen=True)
class ParityReport:
    """All pairs, with the digest of the plan and the versions of who computed."""

    plan_digest: str
    inputs: int
    runtimes: Mapping[str, tuple[str, str]]
    pairs: tuple[Pair, ...]

    def pair(self, first: str, second: str) -> Pair:
        """Return the comparison of two runtimes, in either order."""
        return next(pair for pair in self.pairs if {pair.first, pair.second} == {first, second})

    def to_json(self) -> dict[str, Any]:
        runtimes = {name: {"version": v, "delegate": d} for name, (v, d) in self.runtimes.items()}
        pairs = [pair.to_json() for pair in self.pairs]
        return {"plan": self.plan_digest, "inputs": self.inputs, "runtimes": runtimes, "pairs": pairs}


def evaluate(plan: QuantizationPlan, inputs: NDArray[Any]) -> Execution:
    """Return PyTorch's integer evaluation of a plan for float32 inputs [N, h, w, c]."""
    codes = integer.run(plan, torch.from_numpy(np.ascontiguousarray(inputs.transpose(0, 3, 1, 2), np.float32)))
    return Execution(PYTORCH, torch.__version__, "plan", {r: c.reshape(len(c), -1) for r, c in codes.items()})


def compare(first: Execution, second: Execution) -> Pair:
    """Return how far two executions on the same inputs agree."""
    by_output = {}
    for role in first.codes:
        steps = np.abs(first.codes[role].astype(np.int32) - second.codes[role].astype(np.int32))
        by_output[role] = (steps.size, int((steps > 0).sum()), int(steps.max(initial=0)))
    classes = [execution.codes["logits"].argmax(axis=1) for execution in (first, second)]
    same = float((classes[0] == classes[1]).mean()) if len(classes[0]) else 1.0
    exact = {first.delegate, second.delegate} <= set(EXACT_DELEGATES)
    return Pair(
        first.runtime,
        second.runtime,
        sum(values for values, _, _ in by_output.values()),
        sum(differing for _, differing, _ in by_output.values()),
        max(most for _, _, most in by_output.values()),
        same,
        by_output,
        IDENTICAL if exact else FIXED_POINT,
    )


def execute(
    artefacts: Sequence[tuple[Path, Artefact]],
    runtimes: Sequence[str],
    inputs: NDArray[Any],
    pythons: Mapping[str, Path] | None = None,
) -> list[Execution]:
    """Run each artefact in those of the runtimes that read its format; raises as ``runtimes.run`` does."""
    reads = {"onnx": ("onnxruntime",), "tflite": ("litert", "tflite-runtime")}
    return [
        run(path, artefact, runtime, inputs, python_for(runtime, pythons))
        for path, artefact in artefacts
        for runtime in reads[artefact.format]
        if runtime in runtimes
    ]


def check(plan: QuantizationPlan, executions: Sequence[Execution], inputs: NDArray[Any]) -> ParityReport:
    """Compare every pair of executions, and each with PyTorch's integer evaluation of the plan.

    Args:
        plan: What was evaluated.
        executions: From ``execute``, on the same inputs.
        inputs: float32 [N, h, w, c].

    Raises:
        ParityError: A pair differs beyond its bound; names the pair, the output and the numbers.
    """
    everyone = [*executions, evaluate(plan, inputs)]
    pairs = tuple(compare(a, b) for a, b in combinations(everyone, 2))
    runtimes = {execution.runtime: (execution.version, execution.delegate) for execution in everyone}
    report = ParityReport(plan.digest, len(inputs), runtimes, pairs)
    for pair in pairs:
        if not pair.is_within:
            raise ParityError(_complaint(pair), where=f"{pair.first} and {pair.second}", fix=_FIX)
    return report


_FIX: Final = "check the versions of the runtimes; docs/quantization.md lists which operators agree"


def _complaint(pair: Pair) -> str:
    role, (values, differing, steps) = max(pair.by_output.items(), key=lambda item: item[1][1:])
    allowed = f"at most {pair.bound.steps} steps and {100 * pair.bound.same_class:g} % same classes"
    found = f"{differing} of {values} integers of '{role}' differ, by up to {steps} steps"
    return f"{found}, {100 * pair.same_class:.2f} % same classes; allowed: {allowed}"
