# SPDX-License-Identifier: Apache-2.0
"""What a manifest says of one model file: its tensors, and the runtimes and the target that it is for."""

from dataclasses import dataclass, field
from typing import Any

from edge_contract.errors import ManifestError
from edge_contract.fields import Fields

__all__ = ["DTYPES", "FORMATS", "LAYOUTS", "PRECISIONS", "ROLES", "RUNTIMES", "Artefact", "TensorSpec"]

FORMATS = ("onnx", "tflite")
RUNTIMES = ("onnxruntime", "litert", "tflite-runtime", "edgetpu")
LAYOUTS = ("NHWC", "NCHW", "NC", "NWC", "NCW")
ROLES = ("input", "logits", "embedding", "boxes", "scores", "classes", "output")
PRECISIONS = (
    "int8", "int4", "float32", "float16", "dynamic-int8", "weight-only-int8", "weight-only-int4",
)  # fmt: skip
"""What a file computes in: int4 is int8 with weights packed two in a byte; the last four compute in float."""
DTYPES = ("int8", "uint8", "float32", "int16", "int32", "int64")
INPUTS = DTYPES[:4]
"""Types that a real number is turned into; the others only come out of a model."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of an artefact.

    Attributes:
        name: Name in the file.
        role: ``input``, ``logits``, ``embedding``; of a detector ``boxes`` [1, N, 4 + …] and ``scores`` [1, N, K] or,
            where it chose the class itself, [1, N] beside ``classes`` [1, N]; ``output`` for everything else.
        shape: With batch, such as [1, 28, 28, 1]; 0 marks a free dimension.
        dtype: One of DTYPES; an input is ``int8``, ``uint8``, ``int16`` or ``float32``.
        layout: ``NHWC`` or ``NCHW`` (images), ``NWC`` or ``NCW`` (series), ``NC`` (everything else).
        scale, zero_point: Real value = scale × (integer - zero_point); scale 0 where the number is the real value.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    scale: float = 0.0
    zero_point: int = 0
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "name": self.name,
            "role": self.role,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "layout": self.layout,
            "scale": self.scale,
            "zero_point": self.zero_point,
        }

    @classmethod
    def from_json(cls, document: Any, where: str) -> "TensorSpec":
        f = Fields(document, where, ManifestError)
        return cls(
            f.text("name"),
            f.text("role", among=ROLES),
            f.integers("shape"),
            f.text("dtype", among=DTYPES),
            f.text("layout", among=LAYOUTS),
            f.number("scale", 0.0),
            f.integer("zero_point", 0),
            f.rest(),
        )


@dataclass(frozen=True)
class Artefact:
    """One model file for one runtime and target.

    Attributes:
        path: The file in the bundle.
        format: ``onnx`` or ``tflite``.
        runtimes: The runtimes that it was run in, such as ("litert", "tflite-runtime").
        target: Name of the target, such as ``rpi4`` or ``generic-x86``.
        precision: One of PRECISIONS.
        plan_digest: Digest of the QuantizationPlan, empty for float.
        input: The one input.
        outputs: Such as logits and, if the model shows one, the embedding; in the order that people expect.
    """

    path: str
    format: str
    runtimes: tuple[str, ...]
    target: str
    precision: str
    plan_digest: str
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def output(self, role: str) -> TensorSpec | None:
        """Return the output of a role, or None."""
        return next((spec for spec in self.outputs if spec.role == role), None)

    def keyed(self) -> dict[str, TensorSpec]:
        """Return the outputs by role; where several have the role ``output``, those by their names.

        Example:
            >>> roles = {"x": "scores", "y": "output", "z": "output"}
            >>> outputs = tuple(TensorSpec(name, role, (1, 2), "float32", "NC") for name, role in roles.items())
            >>> list(Artefact("m", "onnx", (), "", "float32", "", outputs[0], outputs).keyed())
            ['scores', 'y', 'z']
        """
        roles = [spec.role for spec in self.outputs]
        return {spec.role if roles.count(spec.role) == 1 else spec.name: spec for spec in self.outputs}

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "path": self.path,
            "format": self.format,
            "runtimes": list(self.runtimes),
            "target": self.target,
            "precision": self.precision,
            "plan_digest": self.plan_digest,
            "input": self.input.to_json(),
            "outputs": [spec.to_json() for spec in self.outputs],
        }

    @classmethod
    def from_json(cls, document: Any, where: str) -> "Artefact":
        f = Fields(document, where, ManifestError)
        runtimes = f.texts("runtimes")
        for name in runtimes:
            if name not in RUNTIMES:
                fix = f"use one of {', '.join(RUNTIMES)}"
                raise ManifestError(f"unknown runtime {name!r}", where=f"{where}.runtimes", fix=fix)
        source = TensorSpec.from_json(f.object("input"), f"{where}.input")
        if source.dtype not in INPUTS:
            fix = f"use one of {', '.join(INPUTS)}"
            raise ManifestError(f"an input of {source.dtype}", where=f"{where}.input.dtype", fix=fix)
        outputs = [TensorSpec.from_json(o, f"{where}.outputs[{i}]") for i, o in enumerate(f.items("outputs"))]
        names = [spec.name for spec in outputs]
        if not names or len(set(names)) < len(names):
            what = f"outputs {', '.join(names)}" if names else "no outputs"
            raise ManifestError(what, where=f"{where}.outputs", fix="give each output once")
        roles = [spec.role for spec in outputs if spec.role != "output"]
        if (twice := next((role for role in roles if roles.count(role) > 1), None)) is not None:
            raise ManifestError(f"two outputs have the role '{twice}'", where=f"{where}.outputs", fix="use 'output'")
        return cls(
            f.text("path"),
            f.text("format", among=FORMATS),
            runtimes,
            f.text("target"),
            f.text("precision", among=PRECISIONS),
            f.text("plan_digest", ""),
            source,
            tuple(outputs),
            f.rest(),
        )
