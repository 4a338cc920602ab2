# SPDX-License-Identifier: Apache-2.0
"""The table of the parity gate: who computed what, how far any two differ, and how far each is from the reference."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from export.parity.fidelity import Fidelity
from export.parity.off_list import OffList
from export.runtimes.matrix import Claim

__all__ = ["Bound", "Judged", "Pair", "ParityReport"]


@dataclass(frozen=True)
class Bound:
    """How far two runtimes may differ: by at most ``steps``, and with at least a share of ``same_class``."""

    steps: int
    same_class: float


@dataclass(frozen=True)
class Pair:
    """Two runtimes on the same inputs, integer by integer.

    Attributes:
        first, second: Their names.
        values: Integers compared, over all outputs.
        differing: How many are not equal.
        max_steps: The largest difference.
        same_class: Share of inputs with the same largest logit; 1 where there are no logits.
        by_output: Role → (values, differing, max_steps).
        bound: What was allowed.
        alone_steps: Only where the steps of the outputs are beyond the bound: the most that any single operation is
            off, given its own inputs. One step is the rounding of a kernel, which adds up; two are a wrong kernel.
    """

    first: str
    second: str
    values: int
    differing: int
    max_steps: int
    same_class: float
    by_output: Mapping[str, tuple[int, int, int]]
    bound: Bound
    alone_steps: int | None = None

    @property
    def is_within(self) -> bool:
        """The difference lies within the bound, or is roundings of right kernels that added up."""
        is_small = self.max_steps <= self.bound.steps or (self.alone_steps is not None and self.alone_steps <= 1)
        return is_small and self.same_class >= self.bound.same_class

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
            **({} if self.alone_steps is None else {"alone_steps": self.alone_steps}),
        }


@dataclass(frozen=True)
class Judged:
    """One output of one execution in real numbers, against a reference.

    Attributes:
        runtime: Who answered.
        against: The reference: ``float model``, or another runtime.
        output: Its role, or its name.
        fidelity: What was found.
    """

    runtime: str
    against: str
    output: str
    fidelity: Fidelity

    def to_json(self) -> dict[str, Any]:
        names = {"runtime": self.runtime, "against": self.against, "output": self.output}
        return {**names, **self.fidelity.to_json()}


@dataclass(frozen=True)
class ParityReport:
    """What the gate found.

    Attributes:
        plan_digest: Of the plan; empty for files without one.
        inputs: How many.
        runtimes: Name → (version, delegate) of who computed.
        pairs: Integer by integer; only for files of one plan.
        judged: In real numbers.
        claims: The target's runtimes, and which versions of them were run.
        notes: Sentences that a person should read.
        off_list: Operations that are not on the identity list, each with its measured bound in steps.
    """

    plan_digest: str
    inputs: int
    runtimes: Mapping[str, tuple[str, str]]
    pairs: tuple[Pair, ...]
    judged: tuple[Judged, ...] = ()
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()
    off_list: tuple[OffList, ...] = ()

    def pair(self, first: str, second: str) -> Pair:
        """Return the comparison of two runtimes, in either order."""
        return next(pair for pair in self.pairs if {pair.first, pair.second} == {first, second})

    def fidelity(self, runtime: str, output: str = "logits") -> Fidelity:
        """Return how near an output in a runtime is to the first reference that it was judged against."""
        return next(row.fidelity for row in self.judged if (row.runtime, row.output) == (runtime, output))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; ``fidelity``, ``claims``, ``notes`` and ``off_list`` only where there are any."""
        more = {
            "fidelity": [row.to_json() for row in self.judged],
            "claims": [claim.to_json() for claim in self.claims],
            "notes": list(self.notes),
            "off_list": [row.to_json() for row in self.off_list],
        }
        return {
            "plan": self.plan_digest,
            "inputs": self.inputs,
            "runtimes": {name: {"version": v, "delegate": d} for name, (v, d) in self.runtimes.items()},
            "pairs": [pair.to_json() for pair in self.pairs],
            **{key: rows for key, rows in more.items() if rows},
        }
