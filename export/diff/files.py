# SPDX-License-Identifier: Apache-2.0
"""What differs between two model files: operators, bytes, tensors, the numbers in weights, the scales."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract import canonical
from export.inspection import inspect
from export.inspection.facts import ModelFacts, Scales

__all__ = ["FileDiff", "OperatorChange", "ScaleChange", "WeightChange", "compare"]

Array = NDArray[Any]
Versions = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class OperatorChange:
    """An operator whose count or version differs: (version, count) in the first file and in the second one."""

    name: str
    first: Versions
    second: Versions

    @property
    def kind(self) -> str:
        """``added``, ``removed``, ``version`` or ``count``."""
        if not self.first or not self.second:
            return "removed" if self.first else "added"
        return "version" if [v for v, _ in self.first] != [v for v, _ in self.second] else "count"

    def to_json(self) -> dict[str, Any]:
        def listed(versions: Versions) -> list[dict[str, int]]:
            return [{"version": version, "count": count} for version, count in versions]

        return {"name": self.name, "change": self.kind, "first": listed(self.first), "second": listed(self.second)}


@dataclass(frozen=True)
class WeightChange:
    """A constant that differs.

    Attributes:
        name: Of the constant in the second file, or in the first one if it was removed.
        at: The operator that reads it first, such as ``CONV_2D 3``; empty if none does.
        kind: ``added``, ``removed``, ``shape`` (or type) or ``values``.
        values, differing: How many numbers there are, and how many differ; of ``values`` only.
        differing_bytes: Share of its bytes that differ.
    """

    name: str
    kind: str
    values: int
    at: str = ""
    differing: int = 0
    differing_bytes: float = 0.0

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "at": self.at, "change": self.kind, "values": self.values}
        if self.kind == "values":
            found |= {"differing": self.differing, "differing_bytes": self.differing_bytes}
        return found


@dataclass(frozen=True)
class ScaleChange:
    """A tensor with other scales: the largest relative change of one, and of a zero point in steps.

    The change is infinite where a scale was 0, or where the scales cannot be told one from the other. ``at`` is the
    operator that writes the tensor, or reads it if it is a constant.
    """

    name: str
    relative: float
    zero_point: int
    at: str = ""

    def to_json(self) -> dict[str, Any]:
        relative = self.relative if math.isfinite(self.relative) else None
        return {"name": self.name, "at": self.at, "relative": relative, "zero_point": self.zero_point}


@dataclass(frozen=True)
class FileDiff:
    """All differences of two model files; empty parts are equal.

    Attributes:
        first, second: The files.
        sizes, weights: Bytes of the files and of their constants, before and after.
        operators: Changed ones.
        tensors: Input or output → (type and shape before, after); "" where there is none.
        constants: How many of the second file's constants are the first one's, to the bit.
        changed: Those that are not.
        scales: Changed ones.
        metadata: Key → (before, after).
    """

    first: str
    second: str
    sizes: tuple[int, int]
    weights: tuple[int, int]
    operators: tuple[OperatorChange, ...]
    tensors: Mapping[str, tuple[str, str]]
    constants: int
    changed: tuple[WeightChange, ...]
    scales: tuple[ScaleChange, ...]
    metadata: Mapping[str, tuple[str, str]]

    @property
    def is_same(self) -> bool:
        """Nothing that this page compares differs."""
        return not (self.operators or self.tensors or self.changed or self.scales or self.metadata)

    def to_json(self) -> dict[str, Any]:
        return {
            "first": self.first,
            "second": self.second,
            "size": list(self.sizes),
            "weights_bytes": list(self.weights),
            "operators": [change.to_json() for change in self.operators],
            "tensors": {name: list(pair) for name, pair in self.tensors.items()},
            "equal_constants": self.constants,
            "weights": [change.to_json() for change in self.changed],
            "scales": [change.to_json() for change in self.scales],
            "metadata": {key: list(pair) for key, pair in self.metadata.items()},
        }


def compare(first: Path, second: Path) -> FileDiff:
    """Return what differs between two model files of either format.

    Raises:
        ModelError: One of them cannot be read.
    """
    a, b = inspect.describe(first), inspect.describe(second)
    old, new = inspect.places(first), inspect.places(second)
    equal, changed = _weights(dict(inspect.constants(first)), dict(inspect.constants(second)))
    return FileDiff(
        str(first),
        str(second),
        (a.size, b.size),
        (a.weights_bytes, b.weights_bytes),
        tuple(_operators(a, b)),
        _pairs(_tensors(a), _tensors(b)),
        equal,
        tuple(replace(c, at=(old if c.kind == "removed" else new).get(c.name, "")) for c in changed),
        tuple(replace(c, at=new.get(c.name, "")) for c in _scales(a, b)),
        _pairs(dict(a.metadata), dict(b.metadata)),
    )


def _operators(a: ModelFacts, b: ModelFacts) -> list[OperatorChange]:
    def versions(facts: ModelFacts, name: str) -> Versions:
        return tuple((version, count) for found, version, count in facts.operators if found == name)

    names = sorted({name for facts in (a, b) for name, _, _ in facts.operators})
    pairs = [OperatorChange(name, versions(a, name), versions(b, name)) for name in names]
    return [pair for pair in pairs if pair.first != pair.second]


def _tensors(facts: ModelFacts) -> dict[str, str]:
    named = (("input", facts.inputs), ("output", facts.outputs))
    return {
        f"{kind} {name}": f"{dtype} {list(shape)}" for kind, found in named for name, (dtype, shape) in found.items()
    }


def _pairs(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {key: (a.get(key, ""), b.get(key, "")) for key in sorted({*a, *b}) if a.get(key) != b.get(key)}


def _weights(a: dict[str, Array], b: dict[str, Array]) -> tuple[int, tuple[WeightChange, ...]]:
    """Compare the constants of two files.

    Names tell little: writers shorten them, so that one layer more renames all that follow. Partners are therefore
    sought in this order: equal name and numbers; equal numbers; equal name and form; equal form, in the files' order;
    equal name. What is left was added or removed.
    """
    rules: tuple[Callable[[str, Array], Any], ...] = (
        lambda name, values: (name, *_content(values)),
        lambda _, values: _content(values),
        lambda name, values: (name, *_form(values)),
        lambda _, values: _form(values),
        lambda name, _: name,
    )
    partner: dict[str, str] = {}
    for rule in rules:
        free: dict[Any, list[str]] = {}
        taken = set(partner.values())
        for name, values in a.items():
            if name not in taken:
                free.setdefault(rule(name, values), []).append(name)
        for name, values in b.items():
            waiting = free.get(rule(name, values), []) if name not in partner else []
            if waiting:
                partner[name] = waiting.pop(0)
    changes = [_change(name, a[partner[name]], values) for name, values in b.items() if name in partner]
    changed = [change for change in changes if change is not None]
    changed += [WeightChange(name, "added", values.size) for name, values in b.items() if name not in partner]
    gone = a.keys() - set(partner.values())
    changed += [WeightChange(name, "removed", values.size) for name, values in a.items() if name in gone]
    return changes.count(None), tuple(changed)


def _form(values: Array) -> tuple[Any, ...]:
    return values.dtype.str, values.shape


def _content(values: Array) -> tuple[Any, ...]:
    return *_form(values), canonical.digest(np.ascontiguousarray(values).tobytes())


def _change(name: str, a: Array, b: Array) -> WeightChange | None:
    if _form(a) != _form(b):
        return WeightChange(name, "shape", b.size)
    first, second = (np.ascontiguousarray(values).reshape(-1).view(np.uint8) for values in (a, b))
    bytes_off = int(np.count_nonzero(first != second))
    if not bytes_off:
        return None
    # By bytes, so that a NaN equals itself.
    off = (first != second).reshape(a.size, -1).any(axis=1)
    return WeightChange(name, "values", a.size, "", int(np.count_nonzero(off)), bytes_off / first.size)


def _scales(a: ModelFacts, b: ModelFacts) -> list[ScaleChange]:
    before = {scales.name: scales for scales in a.scales}
    found = [_scale_change(before[scales.name], scales) for scales in b.scales if scales.name in before]
    changed = [change for change in found if change is not None]
    return sorted(changed, key=lambda change: -change.relative)


def _scale_change(a: Scales, b: Scales) -> ScaleChange | None:
    if (a.scales, a.zero_points) == (b.scales, b.zero_points):
        return None
    old, new = np.array(a.scales), np.array(b.scales)
    if len(old) != len(new) and 1 not in (len(old), len(new)):
        return ScaleChange(b.name, float("inf"), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.nan_to_num(np.abs(new - old) / np.abs(old), nan=0.0, posinf=np.inf)
    moved = np.abs(np.subtract.outer(np.array(b.zero_points), np.array(a.zero_points)))
    return ScaleChange(b.name, float(relative.max()), int(moved.max()))
