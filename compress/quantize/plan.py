# SPDX-License-Identifier: Apache-2.0
"""QuantizationPlan: every integer of a quantized network, decided once.

The writers (``export.onnx.writer``, ``export.tflite.writer``) serialise a plan and decide nothing; PyTorch's integer
evaluation (``compress.quantize.integer``) computes it. One meaning for every code: real = scale × (code - zero point).

Activation codes are signed, -128..127; a file that wants uint8 shifts codes and zero point by 128, which changes no
value. Weights are int8 in -127..127 (of 4 bits: -7..7) with zero point 0, biases int32 with scale = input scale ×
weight scale. Scales are float32 numbers, because that is what both file formats store. Shapes are without batch,
channels first.

A *wide* layer (``WIDE``) is the exception: its weights and bias are float32 numbers, and it is computed in float
between the int8 codes before and behind it. No two runtimes add floats in one order, so its codes may differ by a step.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract import canonical
from edge_contract.errors import ModelError
from edge_contract.fields import Fields

__all__ = ["KINDS", "SCHEMA", "WIDE", "Activation", "Constant", "Operation", "QuantizationPlan"]

SCHEMA = "strop.plan/1"
KINDS = (
    "conv2d",
    "linear",
    "add",
    "add_constant",
    "mul",
    "sigmoid",
    "concat",
    "global_pool",
    "max_pool",
    "flatten",
    "float_conv2d",
    "float_linear",
)
WIDE = {"conv2d": "float_conv2d", "linear": "float_linear"}
"""What a layer is called where it is computed in float32."""
_WEIGHT_AND_BIAS = ("weight", "bias")
_NEEDS = {kind: _WEIGHT_AND_BIAS for pair in WIDE.items() for kind in pair} | {"add_constant": ("weight",)}
ROLES = ("logits", "embedding")


@dataclass(frozen=True)
class Activation:
    """A tensor that the network computes: name, shape without batch, ``bits``, and its per-tensor quantization."""

    name: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int
    bits: int = 8

    def to_json(self) -> dict[str, Any]:
        codes = {"scale": self.scale, "zero_point": self.zero_point, "bits": self.bits}
        return {"name": self.name, "shape": list(self.shape), **codes}

    @classmethod
    def from_json(cls, document: Any, where: str) -> "Activation":
        f = Fields(document, where)
        zero_point = f.integer("zero_point", minimum=-128)
        return cls(f.text("name"), f.integers("shape"), f.number("scale"), zero_point, f.integer("bits"))


@dataclass(frozen=True, eq=False)
class Constant:
    """Weights (int8) or a bias (int32), with zero point 0; both are float32 in a wide layer, with the one scale 1.

    Attributes:
        name: Module path and parameter, such as ``stem.weight``.
        codes: The integers: weights [out, in / groups, height, width] or [out, in], biases [out].
        scales: float32, [1] for per-tensor, [out] for per-channel.
        axis: The channel axis of ``scales``, None for per-tensor.
        bits: Width of the integers: 4 for int8 codes in -7..7 that a file may pack, else the codes' own.
    """

    name: str
    codes: NDArray[Any]
    scales: NDArray[np.float32]
    axis: int | None
    bits: int = 0

    def __post_init__(self) -> None:
        if not self.bits:
            object.__setattr__(self, "bits", int(self.codes.dtype.itemsize * 8))

    @property
    def is_float(self) -> bool:
        """The numbers are real ones, of a wide layer."""
        return self.codes.dtype.kind == "f"

    def channel_scales(self) -> NDArray[np.float32]:
        """Return one scale per output channel, [out], also for a per-tensor constant."""
        return np.broadcast_to(self.scales, (self.codes.shape[0],))

    def to_json(self) -> dict[str, Any]:
        """Return the header entry: everything but the integers, which it names by their SHA-256."""
        little_endian = self.codes.astype(self.codes.dtype.newbyteorder("<"))
        document = {
            "name": self.name,
            "bits": self.bits,
            "shape": list(self.codes.shape),
            "scales": [float(scale) for scale in self.scales],
            "sha256": canonical.digest(little_endian.tobytes()),
        }
        kind = {"type": str(self.codes.dtype)} if self.is_float else {}
        return {**document, **kind, **({} if self.axis is None else {"axis": self.axis})}


@dataclass(frozen=True)
class Operation:
    """One step of the network, in execution order.

    A ReLU or ReLU6 has no operation: its output's range starts at zero (and ends at or below 6), so that the
    saturation of the integers is the clamp.

    A mul's second operand is of the first one's shape, or [C, 1, 1] against [C, H, W]. A concat joins channels.

    Attributes:
        kind: One of ``KINDS``; ``float_conv2d`` and ``float_linear`` are wide layers.
        name: Module path in the user's model.
        inputs, output: Names of activations.
        weight, bias: Names of constants for layers, weight alone for add_constant (int8, [1]), else empty.
        attributes: conv2d, float_conv2d: stride [2], padding [top, left, bottom, right], dilation [2], groups [1];
            max_pool: kernel [2], stride [2], padding [4].
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    output: str
    weight: str = ""
    bias: str = ""
    attributes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "inputs": list(self.inputs),
            "output": self.output,
            "weight": self.weight,
            "bias": self.bias,
            "attributes": {key: list(values) for key, values in self.attributes.items()},
        }

    @classmethod
    def from_json(cls, document: Any, where: str) -> "Operation":
        f = Fields(document, where)
        attributes = Fields(f.object("attributes"), f"{where}.attributes")
        values = {key: attributes.integers(key) for key in f.object("attributes")}
        kind, name = f.text("kind", among=KINDS), f.text("name")
        return cls(kind, name, f.texts("inputs"), f.text("output"), f.text("weight"), f.text("bias"), values)


@dataclass(frozen=True, eq=False)
class QuantizationPlan:
    """A quantized network.

    Attributes:
        input: Name of the input activation.
        outputs: Role (``logits``, ``embedding``) to activation name.
        activations: By name, in order of computation.
        constants: By name.
        operations: In execution order.
        samples: How many calibration samples decided the ranges.
        notes: Sentences for the report (few samples, a grown scale); not part of the digest.
    """

    input: str
    outputs: Mapping[str, str]
    activations: Mapping[str, Activation]
    constants: Mapping[str, Constant]
    operations: tuple[Operation, ...]
    samples: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = {self.input}
        for operation in self.operations:
            self._check(operation, known)
            known.add(operation.output)
        for name in self.outputs.values():
            if name not in known:
                raise ModelError(f"output {name!r} is never computed", where="plan")

    def _check(self, operation: Operation, known: set[str]) -> None:
        where = f"plan, operation '{operation.name}'"
        for name in operation.inputs:
            if name not in known:
                raise ModelError(f"input {name!r} is not computed before it", where=where)
        if operation.output not in self.activations or any(name not in self.activations for name in operation.inputs):
            raise ModelError("an activation is not described", where=where)
        for role in _NEEDS.get(operation.kind, ()):
            if getattr(operation, role) not in self.constants:
                raise ModelError(f"its {role} is missing", where=where)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that was decided; two plans with one digest compute the same integers."""
        return canonical.digest(canonical.dumps(self._decided()))

    def _decided(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "input": self.input,
            "outputs": [{"role": role, "name": name} for role, name in self.outputs.items()],
            "activations": [activation.to_json() for activation in self.activations.values()],
            "constants": [constant.to_json() for constant in self.constants.values()],
            "operations": [operation.to_json() for operation in self.operations],
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything but the constants' integers, which are named by their SHA-256."""
        return {**self._decided(), "digest": self.digest, "samples": self.samples, "notes": list(self.notes)}

    def save(self, path: Path) -> None:
        """Write one ``.npz``: array ``header`` (canonical JSON bytes) and one array per constant; reproducible."""
        header = np.frombuffer(canonical.dumps(self.to_json()), np.uint8)
        arrays = {f"constant_{i}": constant.codes for i, constant in enumerate(self.constants.values())}
        with Path(path).open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, header=header, **arrays)

    @classmethod
    def load(cls, path: Path) -> "QuantizationPlan":
        """Return the plan in a file.

        Raises:
            ModelError: Not a plan, of another schema, or its integers do not match the digest in it.
        """
        try:
            # From memory: numpy leaves the file open when it is no archive.
            with np.load(BytesIO(Path(path).read_bytes()), allow_pickle=False) as archive:
                header = canonical.loads(archive["header"].tobytes(), where=str(path))
                codes = [archive[f"constant_{i}"] for i in range(len(header["constants"]))]
            plan = cls._from_header(header, codes)
        except ModelError:
            raise
        except Exception as error:
            fix = "quantize the model again"
            raise ModelError(f"not a quantization plan: {error}", where=str(path), fix=fix) from error
        if plan.digest != header.get("digest"):
            raise ModelError("the integers do not match the digest", where=str(path), fix="quantize the model again")
        return plan

    @classmethod
    def _from_header(cls, header: Any, codes: list[NDArray[Any]]) -> "QuantizationPlan":
        f = Fields(header, "plan")
        f.text("schema", among=(SCHEMA,))
        activations = [Activation.from_json(a, f"activations[{i}]") for i, a in enumerate(f.items("activations"))]
        constants = [_constant(Fields(c, f"constants[{i}]"), codes[i]) for i, c in enumerate(f.items("constants"))]
        return cls(
            f.text("input"),
            dict(_output(Fields(o, f"outputs[{i}]")) for i, o in enumerate(f.items("outputs"))),
            {activation.name: activation for activation in activations},
            {constant.name: constant for constant in constants},
            tuple(Operation.from_json(o, f"operations[{i}]") for i, o in enumerate(f.items("operations"))),
            f.integer("samples", 0),
            f.texts("notes", ()),
        )


def _output(f: Fields) -> tuple[str, str]:
    return f.text("role", among=ROLES), f.text("name")


def _constant(f: Fields, codes: NDArray[Any]) -> Constant:
    axis, bits = f.integer("axis", None), f.integer("bits")
    return Constant(f.text("name"), codes, np.array(f.numbers("scales"), np.float32), axis, bits)
