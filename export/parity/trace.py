# SPDX-License-Identifier: Apache-2.0
"""Which operation do two runtimes compute differently? Every activation of a plan is shown, and compared in order.

A difference travels: one code off in the first layer is hundreds off in the last. So each operation is judged twice:
by its codes as they are (*cascade*), and *alone*: the plan's arithmetic is applied to the runtime's own inputs of
that operation, and only what differs then was done by the operation's own kernel.

The files are written again with every activation as an output, which leaves a global mean and the flatten behind it
apart where the shipped TFLite file joins them; kernels are otherwise the same.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from compress.quantize import integer, semantics
from compress.quantize.plan import QuantizationPlan
from edge_contract.errors import DataError, UsageError
from edge_contract.manifest import Artefact, TensorSpec
from export.onnx import writer as onnx_writer
from export.runtimes.execution import Execution, run_old
from export.runtimes.matrix import Installed, matrix, run_in
from export.tflite import writer as tflite_writer

__all__ = ["PYTORCH", "OperationRow", "Trace", "trace"]

PYTORCH: Final = "pytorch"

Codes = Mapping[str, NDArray[np.int16]]
Pythons = Mapping[str, Path] | None


@dataclass(frozen=True)
class OperationRow:
    """One operation in two runtimes.

    Attributes:
        name, kind: As in the plan: module path and kind.
        values: Codes of its output, over all inputs.
        differing, max_steps: Between the two runtimes, cascade included.
        alone: (differing, largest step) of the first and of the second runtime against the plan's arithmetic, given
            that runtime's own inputs.
    """

    name: str
    kind: str
    values: int
    differing: int
    max_steps: int
    alone: tuple[tuple[int, int], tuple[int, int]]

    def to_json(self) -> dict[str, Any]:
        alone = [{"differing": differing, "max_steps": steps} for differing, steps in self.alone]
        return {
            "name": self.name,
            "kind": self.kind,
            "values": self.values,
            "differing": self.differing,
            "max_steps": self.max_steps,
            "alone": alone,
        }


@dataclass(frozen=True)
class Trace:
    """All operations in order of computation.

    Attributes:
        first, second: Names of the runtimes.
        rows: One for each operation.
        answers: What the two answered: role → codes [N, K].
    """

    first: str
    second: str
    rows: tuple[OperationRow, ...]
    answers: tuple[Codes, Codes] = field(repr=False, compare=False)

    @property
    def alone_steps(self) -> int:
        """The largest step that any operation of the first runtime differs by, given its own inputs."""
        return max(row.alone[0][1] for row in self.rows)

    @property
    def cause(self) -> OperationRow | None:
        """The first operation whose codes differ, or None."""
        return next((row for row in self.rows if row.differing), None)

    @property
    def wrong(self) -> tuple[str, OperationRow, int] | None:
        """The first runtime's name, operation and steps where a kernel alone is off by more than rounding explains."""
        for row in self.rows:
            for name, (_, steps) in zip((self.first, self.second), row.alone, strict=True):
                if steps > 1:
                    return name, row, steps
        return None

    def to_json(self) -> dict[str, Any]:
        return {"first": self.first, "second": self.second, "operations": [row.to_json() for row in self.rows]}

    def __str__(self) -> str:
        if self.cause is None:
            return f"{self.first} and {self.second} compute every operation alike"
        row = self.cause
        found = f"{row.differing} of {row.values} codes, by up to {row.max_steps} steps"
        text = f"{self.first} and {self.second} part first in '{row.name}' ({row.kind}): {found}"
        if self.wrong is None:
            return text
        name, row, steps = self.wrong
        return f"{text}; {name} is off by up to {steps} steps in '{row.name}' ({row.kind}), given its own inputs"


def trace(
    plan: QuantizationPlan, inputs: NDArray[Any], first: str, second: str = PYTORCH, *, pythons: Pythons = None
) -> Trace:
    """Return how far two runtimes differ in every operation of a plan.

    Args:
        plan: What they compute.
        inputs: float32 [N, h, w, c]; all activations of all of them are kept in memory.
        first, second: Names of ``runtime_matrix.matrix``, such as ``litert`` or ``tflite-runtime 2.7.0``, or
            ``pytorch``, the plan's own arithmetic.
        pythons: Runtime → interpreter, for runtimes that are not installed here.

    Raises:
        UsageError: No such runtime here.
        DataError: No inputs.
        RuntimeAdapterError: A runtime fails.
    """
    if not len(inputs):
        raise DataError("no inputs to trace", where="parity", fix="give at least one")
    found = {name: _activations(plan, inputs, name, pythons) for name in (first, second)}
    answers = tuple({r: v[n].reshape(len(inputs), -1) for r, n in plan.outputs.items()} for v in found.values())
    return Trace(first, second, tuple(_rows(plan, found, first, second)), (answers[0], answers[-1]))


def _rows(plan: QuantizationPlan, found: Mapping[str, Codes], first: str, second: str) -> list[OperationRow]:
    def alone(op: Any, name: str) -> tuple[int, int]:
        # PyTorch's codes are the plan's arithmetic already, and computing it again takes as long as a slow runtime.
        return (0, 0) if name == PYTORCH else _alone(plan, op, found[name])

    rows = []
    for op in plan.operations:
        ours, theirs = (found[name][op.output] for name in (first, second))
        both = alone(op, first), alone(op, second)
        rows.append(OperationRow(op.name, op.kind, ours.size, *_distance(ours, theirs), both))
    return rows


def _distance(first: NDArray[np.int16], second: NDArray[np.int16]) -> tuple[int, int]:
    steps = np.abs(first.astype(np.int32) - second.astype(np.int32))
    return int((steps > 0).sum()), int(steps.max(initial=0))


def _alone(plan: QuantizationPlan, op: Any, codes: Codes) -> tuple[int, int]:
    given = (torch.from_numpy(codes[name].astype(np.int32)) for name in op.inputs)
    with torch.no_grad():
        wanted = integer.apply(plan, op, *given)
    return _distance(codes[op.output], wanted.numpy().astype(np.int16))


def _activations(plan: QuantizationPlan, inputs: NDArray[Any], name: str, pythons: Pythons) -> Codes:
    """Return activation → codes [N, c, h, w] or [N, c] of one runtime, the input's too."""
    source = plan.activations[plan.input]
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(inputs, -1, 1), np.float32))
    codes = semantics.quantize(x, source.scale, source.zero_point)
    if name == PYTORCH:
        with torch.no_grad():
            return {key: v.numpy().astype(np.int16) for key, v in integer.evaluate(plan, codes).items()}
    shown = _shown(plan, inputs, _installed(name, pythons))
    return {plan.input: codes.numpy().astype(np.int16), **shown}


def _installed(name: str, pythons: Pythons) -> Installed:
    known = matrix(pythons=pythons)
    for installed in known:
        if installed.name == name:
            return installed
    here = ", ".join((PYTORCH, *(installed.name for installed in known)))
    raise UsageError(f"runtime '{name}' is not here", where="parity", fix=f"use one of {here}")


def _shown(plan: QuantizationPlan, inputs: NDArray[Any], installed: Installed) -> Codes:
    hidden = tuple(op.output for op in plan.operations if op.output not in plan.outputs.values())
    writer = onnx_writer if installed.format == "onnx" else tflite_writer
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"shown.{installed.format}"
        made = writer.write(plan, path, extra=hidden)
        specs = tuple(_spec(plan, name, made) for name in hidden)
        answer = _run(installed, path, replace(made, outputs=(*made.outputs, *specs)), inputs)
    names = {**plan.outputs, **{name: name for name in hidden}}
    return {name: _channels_first(answer.codes[key], answer.specs[key]) for key, name in names.items()}


def _run(installed: Installed, path: Path, artefact: Artefact, inputs: NDArray[Any]) -> Execution:
    # Elsewhere by the small probe: the device's own shows logits and embedding alone.
    if installed.python is not None and not installed.command:
        return run_old(path, artefact, inputs, [str(installed.python)])
    return run_in(installed, path, artefact, inputs)


def _spec(plan: QuantizationPlan, name: str, made: Artefact) -> TensorSpec:
    """Describe an activation that is shown; its name is its role, so that it keeps its key."""
    spec, model = plan.activations[name], made.input
    is_map = len(spec.shape) == 3
    shape = (*spec.shape[1:], spec.shape[0]) if is_map and made.format == "tflite" else spec.shape
    layout = ("NHWC" if made.format == "tflite" else "NCHW") if is_map else "NC"
    zero = spec.zero_point + (128 if model.dtype == "uint8" else 0)
    return TensorSpec(name, name, (model.shape[0], *shape), model.dtype, layout, spec.scale, zero)


def _channels_first(codes: NDArray[Any], spec: TensorSpec) -> NDArray[np.int16]:
    maps = codes.reshape(len(codes), *spec.shape[1:])
    return np.moveaxis(maps, -1, 1) if spec.layout == "NHWC" else maps
