# SPDX-License-Identifier: Apache-2.0
"""A per-operator profile in one form, whatever runtime it came from (``strop.ops/1``). Standard library only.

Both profilers tell whole microseconds. Times of a small operator are then 0 or 1, and their plain median is wrong by as
much as itself; ``middle`` therefore takes the median of grouped data, which spreads the values of a group evenly over
its microsecond. One operator is good to half a microsecond, and ``resolution_us`` says so.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median_grouped
from typing import Any, Final

from edge_contract.errors import MeasurementError
from edge_contract.fields import Fields

__all__ = ["SCHEMA", "OpTime", "Profile", "middle", "read"]

SCHEMA: Final = "strop.ops/1"
_FAR: Final = 0.15


@dataclass(frozen=True)
class OpTime:
    """One operator that ran.

    Attributes:
        index: Place in the order of running, from 0.
        kind: One of ``kinds.KINDS``.
        native: What the runtime calls it: ``FusedConv``, ``Convolution (NHWC, QC8) DWConv``.
        name: Of the node or its output tensor in the file; empty where the runtime does not say which one it was.
        inputs, outputs: Shapes; empty where they are not known.
        median_us: Time of one run.
        share: Of the sum of all operators.
        runs: How many times are behind it.
        delegated: A delegate or another provider than the CPU's ran it.
    """

    index: int
    kind: str
    native: str
    name: str
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    median_us: float
    share: float
    runs: int
    delegated: bool


@dataclass(frozen=True)
class Profile:
    """All operators of a model, and how their sum stands against the whole.

    Attributes:
        model: File name.
        sha256: Of the file.
        runtime, version: What ran it.
        threads: Of one inference.
        source: Which profiler: ``onnxruntime`` or ``litert``.
        whole_us: Median of one inference without a profiler, in turns with the profiled ones.
        profiled_us: The same with the profiler on: what looking costs.
        inside_us: The runtime's own time of its whole run, with the profiler on.
        sum_us: Median over the runs of the sum of all operators in a run. Where other work interrupts long runs, each
            at another operator, it is more than the sum of the medians.
        runs: Profiled runs that count.
        dropped: First ones that do not: profilers are on from the beginning, so the warm-up is in their file.
        resolution_us: Smallest step of the profiler's clock.
        ops: In the order of running.
    """

    model: str
    sha256: str
    runtime: str
    version: str
    threads: int
    source: str
    whole_us: float
    profiled_us: float
    inside_us: float
    sum_us: float
    runs: int
    dropped: int
    resolution_us: float
    ops: tuple[OpTime, ...]

    @property
    def cover(self) -> float:
        """Sum of the operators over the whole; far from 1: the rest is the runtime's own, or looking was dear."""
        return self.sum_us / self.whole_us if self.whole_us else 0.0

    @property
    def delegated(self) -> float:
        """Share of the operators' time that a delegate took."""
        return sum(op.share for op in self.ops if op.delegated)

    def _footer(self) -> list[str]:
        whole = f"{_us(self.whole_us)} µs without the profiler, {_us(self.profiled_us)} with it"
        delegates = f"{100 * self.delegated:.0f} % of the time in delegates"
        good = f"one operator is good to {self.resolution_us / 2:g} µs"
        lines = [
            f"sum of operators {_us(self.sum_us)} µs, {100 * self.cover:.0f} % of the whole ({whole})",
            f"{self.runs} runs in turns, {self.dropped} first ones dropped; {good}; {delegates}",
        ]
        alone = sum(op.median_us for op in self.ops)
        if self.sum_us > (1 + _FAR) * alone:
            lines.append(f"the operators' medians sum to {_us(alone)} µs only: other work interrupts the runs")
        if abs(self.cover - 1) > _FAR:
            why = "the profiler's own work is in these times" if self.cover > 1 else "the rest is between the operators"
            lines.append(f"{why}: trust the order of the operators more than their microseconds")
        return lines

    def by_kind(self) -> dict[str, tuple[int, float, float]]:
        """Return kind → (operators, microseconds, share), the largest first."""
        found: dict[str, list[OpTime]] = defaultdict(list)
        for op in self.ops:
            found[op.kind].append(op)
        rows = {
            kind: (len(ops), sum(o.median_us for o in ops), sum(o.share for o in ops)) for kind, ops in found.items()
        }
        return dict(sorted(rows.items(), key=lambda row: -row[1][1]))

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return {"schema": SCHEMA, **asdict(self), "cover": round(self.cover, 4)}

    @classmethod
    def from_json(cls, document: Any, where: str = "profile") -> "Profile":
        """Read what ``to_json`` wrote; raises MeasurementError with the field that is wrong."""
        fields = Fields(document, where, MeasurementError)
        fields.text("schema", among=(SCHEMA,))
        keys = set(cls.__dataclass_fields__) - {"ops"}
        missing = sorted(keys - set(document))
        if missing:
            raise MeasurementError(f"field '{missing[0]}' is missing", where=where)
        ops = tuple(_op(op, f"{where}.ops[{k}]") for k, op in enumerate(document.get("ops", ())))
        return cls(**{key: document[key] for key in keys}, ops=ops)

    def to_text(self, top: int = 0) -> str:
        """Return tables for people: the slowest ``top`` operators (0: all, in their order), and the kinds."""
        chosen = sorted(self.ops, key=lambda op: -op.median_us)[:top] if top else self.ops
        rows = [
            (str(o.index), o.kind, _us(o.median_us), f"{100 * o.share:.1f} %", _name(o), _shapes(o)) for o in chosen
        ]
        kinds = [(kind, str(n), _us(us), f"{100 * share:.1f} %") for kind, (n, us, share) in self.by_kind().items()]
        return "\n".join(
            [
                f"{self.model} in {self.runtime} {self.version}, {self.threads} thread{'s' * (self.threads > 1)}",
                *_table(("#", "kind", "µs", "share", "operator", "shapes"), rows),
                "",
                *_table(("kind", "operators", "µs", "share"), kinds),
                "",
                *self._footer(),
            ]
        )


def middle(values: Sequence[int], *, floored: bool = False) -> float:
    """Return the median of times in whole microseconds, as of grouped data; never below 0.

    Args:
        values: Microseconds.
        floored: The profiler cut each duration down, so the true ones lie half a microsecond higher on average. A
            difference of two cut moments needs nothing: its errors cancel.

    Example:
        >>> middle([0, 0, 1, 0, 1]), middle([7, 7, 7], floored=True)
        (0.333, 7.5)
    """
    return max(0.0, round(median_grouped(values, 1) + (0.5 if floored else 0.0), 3))


def read(path: Path) -> Profile:
    """Read a stored profile.

    Raises:
        MeasurementError: It is no profile.
        OSError: It cannot be read.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MeasurementError(f"no JSON: {error}", where=str(path)) from error
    return Profile.from_json(document, str(path))


def _op(document: Mapping[str, Any], where: str) -> OpTime:
    fields = Fields(document, where, MeasurementError)
    shapes = {
        key: tuple(tuple(int(d) for d in shape) for shape in document.get(key, ())) for key in ("inputs", "outputs")
    }
    return OpTime(
        fields.integer("index", minimum=0),
        fields.text("kind"),
        fields.text("native"),
        fields.text("name"),
        shapes["inputs"],
        shapes["outputs"],
        float(document["median_us"]),
        float(document["share"]),
        fields.integer("runs", minimum=1),
        bool(document["delegated"]),
    )


def _us(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _name(op: OpTime) -> str:
    return f"{op.native}  [{op.name}]" if op.name else op.native


def _shapes(op: OpTime) -> str:
    first = ["×".join(map(str, shape)) for shape in (op.inputs[:1] + op.outputs[:1])]
    return " → ".join(first)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with columns; numbers to the right."""
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    right = {"#", "µs", "share", "operators"}
    return [
        "  ".join(
            cell.rjust(width) if title in right else cell.ljust(width)
            for cell, width, title in zip(row, widths, head, strict=True)
        ).rstrip()
        for row in (head, *rows)
    ]
