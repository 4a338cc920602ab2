# SPDX-License-Identifier: Apache-2.0
"""Describe a model file of another maker as an artefact: what a manifest must say of it, read from the file itself."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import ModelError, UnsupportedOperatorError, UsageError
from edge_contract.manifest import ROLES, Artefact, TensorSpec
from export.inspection import inspect
from export.inspection.facts import ModelFacts

__all__ = ["SHARES", "Purpose", "aligned", "describe"]

_INPUTS: Final = ("int8", "uint8", "int16", "float32")
_OUTPUTS: Final = (*_INPUTS, "int32", "int64")
# Outside of the formats' own operators, but in every build of the runtimes.
_COMMON: Final = ("TFLite_Detection_PostProcess", "com.microsoft.", "ai.onnx.ml.")
_COMPILED: Final = "edgetpu-custom-op"
SHARES: Final = ("SOFTMAX", "LOGISTIC", "Softmax", "Sigmoid", "QLinearSigmoid", "QLinearSoftmax")
"""Operators that give shares of one: behind them no softmax is due."""
_BOX: Final = 4  # numbers of a box, at least


@dataclass(frozen=True)
class Purpose:
    """What the file is for.

    Attributes:
        task: ``classification``, ``detection``, ``regression`` or ``other``.
        labels: Names of the classes; may be empty where there are none.
        shape: Of the model's input as the preprocessing makes it, channels last, without the batch.
        roles: Output → role, where the maker of the bundle says so.
        background: The scores' first column is "nothing".
    """

    task: str
    labels: tuple[str, ...]
    shape: tuple[int, ...]
    roles: Mapping[str, str]
    background: bool = False


def describe(path: Path, purpose: Purpose) -> Artefact:
    """Return the description of a file, with no runtime and no target claimed yet.

    Raises:
        ModelError: It cannot be read, has not one input, or other tensors than can be described.
        UnsupportedOperatorError: It has an operator that no runtime knows.
        UsageError: The preprocessing makes another input than the file wants, or the outputs' roles cannot be told.
    """
    facts, where = inspect.describe(path), path.name
    _refuse_custom(facts, where)
    if facts.outside:
        fix = "save the model as one file"
        raise ModelError(f"its weights lie in {', '.join(facts.outside)}", where=where, fix=fix)
    if len(facts.inputs) != 1:
        names = ", ".join(facts.inputs) or "none"
        raise ModelError(f"{len(facts.inputs)} inputs ({names}), one is supported", where=where)
    ((name, (_, shape)),) = facts.inputs.items()
    layout = _layout(shape, purpose.shape, facts.format, where)
    roles = {name: "input", **_roles(facts, purpose, where)}
    source, *outputs = (_spec(facts, tensor, role, layout, where) for tensor, role in roles.items())
    precision = "float32" if facts.float_operators else "int8"
    return Artefact(path.name, facts.format, (), "", precision, facts.plan_digest, source, tuple(outputs))


def _refuse_custom(facts: ModelFacts, where: str) -> None:
    for name in facts.custom:
        if not name.startswith(_COMMON):
            fix = "convert the model with standard operators only"
            if name == _COMPILED:
                fix = "adopt the file from before edgetpu_compiler"
            raise UnsupportedOperatorError(
                f"custom operator '{name}', which no runtime here knows", where=where, fix=fix
            )


def _layout(shape: tuple[int, ...], wanted: tuple[int, ...], format_name: str, where: str) -> str:
    """Return how the file lays out what the preprocessing makes; where both ways fit, as its format usually does."""
    inner = shape[1:]
    if not shape or shape[0] not in (0, 1) or not all(size > 0 for size in inner):
        fix = "convert it with batch 1 and fixed sizes"
        raise ModelError(f"an input of shape {list(shape)}", where=where, fix=fix)
    last, first = {2: ("NHWC", "NCHW"), 1: ("NWC", "NCW")}.get(len(wanted) - 1, ("NC", "NC"))
    fitting = [last] if inner == wanted else []
    fitting += [first] if inner == (*wanted[-1:], *wanted[:-1]) else []
    if not fitting and _sides(inner) == _sides(wanted):  # a series as an image of one row, and the like
        fitting = [{3: "NHWC", 2: "NWC"}.get(len(inner), "NC")]
    if not fitting:
        what = f"the preprocessing makes inputs of shape {list(wanted)}, the file wants {list(inner)}"
        raise UsageError(what, where=where, fix="correct --preprocess, such as its resize")
    return fitting[0] if format_name == "tflite" or len(fitting) == 1 else fitting[-1]


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _spec(facts: ModelFacts, name: str, role: str, layout: str, where: str) -> TensorSpec:
    is_input = role == "input"
    dtype, shape = (facts.inputs if is_input else facts.outputs)[name]
    if dtype not in (_INPUTS if is_input else _OUTPUTS):
        raise ModelError(f"tensor '{name}' is {dtype}", where=where, fix=f"use one of {', '.join(_OUTPUTS)}")
    if not is_input and (len(shape) != 4 or layout not in ("NHWC", "NCHW")):
        layout = "NC"
    found = facts.scale_of(name) if dtype in ("int8", "uint8", "int16") else None
    if found is None:
        return TensorSpec(name, role, shape, dtype, layout)
    if found.axis is not None:
        raise ModelError(f"tensor '{name}' has {len(found.scales)} scales", where=where, fix="quantize it per tensor")
    return TensorSpec(name, role, shape, dtype, layout, found.scales[0], found.zero_points[0])


def _roles(facts: ModelFacts, purpose: Purpose, where: str) -> dict[str, str]:
    for name, role in purpose.roles.items():
        if name not in facts.outputs or role not in ROLES[1:]:
            fix = f"write NAME=ROLE with NAME one of {', '.join(facts.outputs)} and ROLE one of {', '.join(ROLES[1:])}"
            raise UsageError(f"{name}={role}", where="--role", fix=fix)
    guessed = {"classification": _class_roles, "detection": _box_roles}.get(purpose.task)
    found = guessed(facts, purpose, where) if guessed else {}
    usual = {name: "embedding" if name == "embedding" else "output" for name in facts.outputs}
    return usual | found | dict(purpose.roles)


def _class_roles(facts: ModelFacts, purpose: Purpose, where: str) -> dict[str, str]:
    if "logits" in purpose.roles.values():
        return {}
    fitting = [name for name, (_, shape) in facts.outputs.items() if math.prod(shape[1:]) == len(purpose.labels)]
    if len(fitting) != 1:
        told = ", ".join(f"{name} {list(shape)}" for name, (_, shape) in facts.outputs.items())
        what = f"{len(fitting)} of its outputs have {len(purpose.labels)} numbers, one for each label: {told}"
        raise UsageError(what, where=where, fix="correct --labels, or name the output with --role NAME=logits")
    return {fitting[0]: "logits"}


def _box_roles(facts: ModelFacts, purpose: Purpose, where: str) -> dict[str, str]:
    if {"boxes", "scores"} <= set(purpose.roles.values()):
        return {}
    classes = len(purpose.labels) + purpose.background
    rows = {name: shape for name, (_, shape) in facts.outputs.items() if len(shape) == 3}
    scores = [name for name, shape in rows.items() if shape[2] == classes]
    boxes = [name for name, shape in rows.items() if shape[2] >= _BOX and name not in scores]
    if len(scores) != 1 or len(boxes) != 1:
        told = ", ".join(f"{name} {list(shape)}" for name, (_, shape) in facts.outputs.items())
        fix = "name them with --role NAME=boxes and --role NAME=scores"
        raise UsageError(f"cannot tell boxes from scores among {told}", where=where, fix=fix)
    return {boxes[0]: "boxes", scores[0]: "scores"}


def aligned(described: list[Artefact]) -> list[Artefact]:
    """Return descriptions of one model in several files, with the outputs in the order of the first file.

    Golden answers are one row of numbers for all files of a bundle, so their outputs must be the same ones.

    Raises:
        ModelError: The outputs have other names, shapes or kinds of numbers.
    """
    first = described[0]
    result = [first]
    for other in described[1:]:
        found = {spec.name: spec for spec in other.outputs}
        names = [spec.name for spec in first.outputs]
        if set(found) != set(names):
            what = f"outputs {', '.join(found)} in {other.path}, {', '.join(names)} in {first.path}"
            raise ModelError(what, where="adopt", fix="make a bundle of each")
        outputs = tuple(replace(found[spec.name], role=spec.role) for spec in first.outputs)
        for mine, theirs in zip(first.outputs, outputs, strict=True):
            if _numbers(mine) != _numbers(theirs):
                what = f"output '{mine.name}' is {_told(mine)} in {first.path}, {_told(theirs)} in {other.path}"
                raise ModelError(what, where="adopt", fix="make a bundle of each")
        result.append(replace(other, outputs=outputs))
    return result


def _numbers(spec: TensorSpec) -> tuple[Any, ...]:
    """What must be equal; uint8 holds the integers of int8, shifted by 128."""
    zero = spec.zero_point - (128 if spec.dtype == "uint8" else 0)
    kind = "int8" if spec.dtype == "uint8" else spec.dtype
    return kind, spec.scale, zero, _sides(spec.shape[1:])


def _told(spec: TensorSpec) -> str:
    scale = f", scale {spec.scale:.6g}" if spec.scale else ""
    return f"{spec.dtype} {list(spec.shape)}{scale}"
