# SPDX-License-Identifier: Apache-2.0
"""Do all runtimes compute what was evaluated? Files of a plan are compared code by code, all others number by number.

The bound of a pair comes from what computes it. ONNX Runtime, LiteRT with XNNPACK and PyTorch's integer evaluation
round alike on a plan (``compress.quantize.semantics``): not one integer may differ. Where the plan holds operations
that are not on the identity list (``export.parity.off_list``: wide layers, sums that may tie) two steps are allowed,
and each such operation is named with what it differs by, given its own inputs; all others must still be exact. The
built-in kernels of tflite-runtime, and of LiteRT without XNNPACK, round twice in fixed point: in each layer about a
tenth of a percent of the codes moves up by one step, so that the outputs differ by a step or two, more behind many
layers; the classes must still be the same, and no operation alone may be off by more than one step
(``export.parity.kernels``).

Beside that, every file is judged against the float model where its answers are given (``export.parity.fidelity``), and
an output that is the same for all inputs is refused by name: per-channel fully-connected weights do that, without an
error, on tflite-runtime 2.7 to 2.9.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from export.memory.macs import macs
from export.parity import fidelity
from export.parity.fidelity import BETWEEN_INT8, INT8, Limits
from export.parity.kernels import Kernels
from export.parity.off_list import off_list
from export.parity.real import Reference, judge_float, judged_all, refuse_constant
from export.parity.report import Bound, Judged, Pair, ParityReport
from export.parity.trace import PYTORCH, Trace, trace
from export.runtimes.execution import Execution, python_for, run
from export.runtimes.matrix import Installed, run_in
from export.tflite.reader import read_file

__all__ = [
    "EXACT_DELEGATES",
    "PYTORCH",
    "Bound",
    "Judged",
    "Pair",
    "ParityReport",
    "Trace",
    "check",
    "compare",
    "evaluate",
    "execute",
    "judge_float",
    "old_share",
    "trace",
]

EXACT_DELEGATES: Final = ("xnnpack", "cpu", "plan")  # LiteRT's, ONNX Runtime's, PyTorch's
OLD_INPUTS: Final = 128
"""How many inputs old versions are given at most: with kernels of 2021 seven of them take minutes for a thousand."""
OLD_MACS: Final = 5_000_000_000
"""How many multiply-accumulates an old version is given at most, which takes its plain loops about ten seconds."""
OLD_LEAST: Final = 8
"""How many inputs old versions are given at least, however large the network is."""
IDENTICAL: Final = Bound(0, 1.0)
FIXED_POINT: Final = Bound(4, 0.98)  # seen on 28 layers: 3 steps, all classes equal
OFF_LIST: Final = Bound(2, 0.98)  # seen with 17 wide layers of 17: 1 step of logits, 3 inside
_READS: Final = {"onnx": ("onnxruntime",), "tflite": ("litert", "tflite-runtime")}


def evaluate(plan: QuantizationPlan, inputs: NDArray[Any]) -> Execution:
    """Return PyTorch's integer evaluation of a plan for float32 inputs [N, h, w, c]."""
    codes = integer.run(plan, torch.from_numpy(np.ascontiguousarray(np.moveaxis(inputs, -1, 1), np.float32)))
    return Execution(PYTORCH, torch.__version__, "plan", {r: c.reshape(len(c), -1) for r, c in codes.items()})


def compare(first: Execution, second: Execution, *, exactly: Bound = IDENTICAL) -> Pair:
    """Return how far two executions agree; where one was given fewer of the inputs, on those.

    ``exactly`` is what two runtimes with exact kernels are held to.
    """
    first, second = _same_inputs(first, second)
    by_output = {}
    for role in first.codes:
        steps = np.abs(first.codes[role].astype(np.int32) - second.codes[role].astype(np.int32))
        by_output[role] = (steps.size, int((steps > 0).sum()), int(steps.max(initial=0)))
    exact = all(_is_exact(execution, exactly) for execution in (first, second))
    return Pair(
        first.name,
        second.name,
        sum(values for values, _, _ in by_output.values()),
        sum(differing for _, differing, _ in by_output.values()),
        max(most for _, _, most in by_output.values()),
        _same_class(first, second),
        by_output,
        exactly if exact else _bound_of(len(next(iter(first.codes.values())))),
    )


def _bound_of(inputs: int) -> Bound:
    """Return the bound of kernels that round twice; of few inputs one may change its class, or none could."""
    return replace(FIXED_POINT, same_class=min(FIXED_POINT.same_class, (inputs - 1) / max(inputs, 1)))


def _is_exact(execution: Execution, bound: Bound) -> bool:
    """tflite-runtime gives a wide layer to XNNPACK and so names it, but may run its own int8 kernels around it."""
    is_mixed = bound == OFF_LIST and execution.runtime.split(" ")[0] == "tflite-runtime"
    return execution.delegate in EXACT_DELEGATES and not is_mixed


def _same_inputs(first: Execution, second: Execution) -> tuple[Execution, Execution]:
    count = min(len(codes) for execution in (first, second) for codes in execution.codes.values())
    cut = [replace(e, codes={role: codes[:count] for role, codes in e.codes.items()}) for e in (first, second)]
    return cut[0], cut[1]


def _same_class(first: Execution, second: Execution) -> float:
    if "logits" not in first.codes or not len(first.codes["logits"]):
        return 1.0
    classes = [execution.codes["logits"].argmax(axis=1) for execution in (first, second)]
    return float((classes[0] == classes[1]).mean())


def execute(
    artefacts: Sequence[tuple[Path, Artefact]],
    runtimes: Sequence[str],
    inputs: NDArray[Any],
    pythons: Mapping[str, Path] | None = None,
    *,
    old: Sequence[Installed] = (),
) -> list[Execution]:
    """Run each artefact in those of the runtimes that read its format.

    Args:
        artefacts: Files with their descriptions.
        runtimes: Names, such as ``litert``.
        inputs: float32 [N, ...].
        pythons: Runtime → interpreter, for those that are not installed here.
        old: Further versions, from ``runtime_matrix``, on the first inputs, as many as ``old_share`` says; those whose
            runtime is not among ``runtimes`` are left out.

    Raises:
        RuntimeAdapterError, MissingDependencyError, DataError: As ``runtimes.run``.
    """
    found = []
    for path, artefact in artefacts:
        wanted = [runtime for runtime in _READS[artefact.format] if runtime in runtimes]
        found += [run(path, artefact, runtime, inputs, python_for(runtime, pythons)) for runtime in wanted]
        given = [version for version in old if version.runtime in wanted]
        few = inputs[: old_share(path)] if given else inputs
        found += [run_in(version, path, artefact, few) for version in given]
    return found


def old_share(path: Path) -> int:
    """Return how many inputs an old version is given of a TFLite file: the fewer, the more it multiplies.

    It follows from the file alone, not from a clock, so that the same model has the same table everywhere.
    """
    graph = read_file(path).main
    each = sum(macs(operator, graph) for operator in graph.operators)
    return max(OLD_LEAST, min(OLD_INPUTS, OLD_MACS // max(each, 1)))


def check(
    plan: QuantizationPlan,
    executions: Sequence[Execution],
    inputs: NDArray[Any],
    *,
    reference: Reference | None = None,
    labels: NDArray[Any] | None = None,
    limits: Limits = INT8,
    pythons: Mapping[str, Path] | None = None,
) -> ParityReport:
    """Compare every pair of executions, each with PyTorch's integer evaluation, and each with the float model.

    Args:
        plan: What was evaluated.
        executions: From ``execute``, on the same inputs.
        inputs: float32 [N, h, w, c].
        reference: Role → the float model's answers float32 [N, ...], where they are known.
        labels: Right classes [N].
        limits: How far from the reference is wrong and not coarse.
        pythons: As for ``execute``: to run again what differs, so that the operation can be named.

    Raises:
        ParityError: An output that is the same for all inputs, a pair that differs beyond its bound, an operation of
            the identity list that an exact kernel computes otherwise, or an answer too far from the reference; names
            who, the output and the numbers, and the first operation that differs.
    """
    everyone = [*executions, evaluate(plan, inputs)]
    refuse_constant(everyone, inputs, reference or {})
    kernels, reasons = Kernels(plan, inputs, everyone[-1], pythons), off_list(plan)
    bound = OFF_LIST if reasons else IDENTICAL
    pairs = tuple(_allowed(kernels, a, b, bound) for a, b in combinations(everyone, 2))
    measured = kernels.off_list(reasons, [e for e in executions if _is_exact(e, bound)])
    answers = {e.name: _real(plan, e) for e in everyone}
    judged = tuple(judged_all(answers, reference or {}, labels, limits))
    runtimes = {execution.name: (execution.version, execution.delegate) for execution in everyone}
    notes = (*_delegate_notes(executions), *_share_notes(executions, len(inputs)))
    return ParityReport(plan.digest, len(inputs), runtimes, pairs, judged, notes=notes, off_list=measured)


def _allowed(kernels: Kernels, first: Execution, second: Execution, exactly: Bound) -> Pair:
    """Return the comparison of two executions, or raise ParityError."""
    pair = compare(first, second, exactly=exactly)
    if not pair.is_within and pair.bound != IDENTICAL and _is_near(kernels.plan, first, second):
        pair = replace(pair, alone_steps=kernels.alone_steps(first, second))
    if not pair.is_within:
        where = f"{pair.first} and {pair.second}"
        raise ParityError(_complaint(pair), where=where, fix=kernels.explain(first, second))
    return pair


def _is_near(plan: QuantizationPlan, first: Execution, second: Execution) -> bool:
    a, b = (_real(plan, execution) for execution in _same_inputs(first, second))
    return not any(BETWEEN_INT8.broken(fidelity.compare(a[role], b[role], where=role)) for role in a)


def _real(plan: QuantizationPlan, execution: Execution) -> Reference:
    return {role: integer.dequantize(plan, role, codes) for role, codes in execution.codes.items()}


def _delegate_notes(executions: Sequence[Execution]) -> tuple[str, ...]:
    """LiteRT drops XNNPACK without an error where it cannot read the CPU's properties, and rounds otherwise then."""
    return tuple(
        f"{e.title} ran kernels '{e.delegate}', not XNNPACK: a device's integers differ by some steps"
        for e in executions
        if e.runtime.split(" ")[0] == "litert" and e.delegate != "xnnpack"
    )


def _share_notes(executions: Sequence[Execution], inputs: int) -> tuple[str, ...]:
    """Say which versions saw a share of the inputs only; nothing is left out in silence."""
    seen = {e.title: min(len(codes) for codes in e.codes.values()) for e in executions}
    counts = sorted({count for count in seen.values() if count < inputs}, reverse=True)
    by_count = {count: ", ".join(title for title, its in seen.items() if its == count) for count in counts}
    why = "their kernels are slow, and the larger the network, the fewer they get"
    return tuple(f"{count} of {inputs} inputs in {titles}: {why}" for count, titles in by_count.items())


def _complaint(pair: Pair) -> str:
    role, (values, differing, steps) = max(pair.by_output.items(), key=lambda item: item[1][1:])
    allowed = f"at most {pair.bound.steps} steps and {100 * pair.bound.same_class:g} % same classes"
    found = f"{differing} of {values} integers of '{role}' differ, by up to {steps} steps"
    return f"{found}, {100 * pair.same_class:.2f} % same classes; allowed: {allowed}"
