# SPDX-License-Identifier: Apache-2.0
"""Is a large difference a wrong kernel, or small roundings of right ones that added up? And whose is it?

Kernels that round twice move a tenth of a percent of the codes by one step in each layer. Through sixty layers with
products of tensors that grew to sixteen steps at the end, although no operation alone was off by more than one, and
the answers lay as near to the float model as the exact ones. So the steps at the end cannot be the judge of a deep
network; the steps of each operation on its own inputs can. The inputs that differ most are run again for that, with
every activation shown, and only if the same answers come out again is it evidence about the file.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.quantize.plan import QuantizationPlan
from edge_contract.errors import ParityError, StropError
from export.parity.off_list import OffList
from export.parity.trace import PYTORCH, Trace, trace
from export.runtimes.execution import Execution

__all__ = ["Kernels"]

_INPUTS: Final = 8  # every activation of every one is kept in memory
_OFF_LIST_INPUTS: Final = 32
_FOREIGN: Final = (
    "written again from the plan it answers otherwise: the file is not what the plan says; export it again"
)


@dataclass
class Kernels:
    """The operations of a plan in the runtimes that differ, run again once for all versions with equal answers.

    Attributes:
        plan: What they compute.
        inputs: float32 [N, h, w, c], those of the executions, or more.
        planned: What the plan says for them.
        pythons: Runtime → interpreter, for runtimes that are not installed here.
    """

    plan: QuantizationPlan
    inputs: NDArray[Any]
    planned: Execution
    pythons: Mapping[str, Path] | None = None
    _steps: dict[str, int | None] = field(default_factory=dict)

    def alone_steps(self, *executions: Execution) -> int | None:
        """Return the most that any operation of any of them is off, given its own inputs.

        None where that cannot be told: a runtime is not here, or what is written from the plan answers otherwise.
        """
        found = [self._alone(execution) for execution in executions]
        return None if None in found else max(steps for steps in found if steps is not None)

    def explain(self, first: Execution, second: Execution) -> str:
        """Return one clause: in which operation the two part, or that one of the files is not the plan's."""
        rows = _worst(first, second)
        names = [_name(execution) for execution in (first, second)]
        try:
            found = trace(self.plan, self.inputs[rows], names[0], names[1], pythons=self.pythons)
        except StropError as error:
            return f"check the versions of the runtimes (the operation was not found: {error.what})"
        for execution, answers in zip((first, second), found.answers, strict=True):
            if not _is_same(execution, answers, rows):
                return f"{execution.title}: {_FOREIGN}"
        return f"{found}; docs/parity.md says what to do"

    def off_list(self, reasons: Mapping[str, str], executions: Sequence[Execution]) -> tuple[OffList, ...]:
        """Return what each operation off the identity list differs by, alone, in every runtime with exact kernels.

        Raises:
            ParityError: An operation of the list is computed otherwise; StropError as ``trace``.
        """
        if not reasons:
            return ()
        inputs = self.inputs[:_OFF_LIST_INPUTS]
        traces = {e.name: trace(self.plan, inputs, _name(e), PYTORCH, pythons=self.pythons) for e in executions}
        for name, found in traces.items():
            _refuse_inexact(name, found, reasons)
        rows = zip(*(found.rows for found in traces.values()), strict=True)
        return tuple(
            OffList(
                of[0].name,
                of[0].kind,
                reasons[of[0].name],
                of[0].values,
                {name: row.alone[0] for name, row in zip(traces, of, strict=True)},
            )
            for of in rows
            if of[0].name in reasons
        )

    def _alone(self, execution: Execution) -> int | None:
        # Five versions of one year round alike; where every integer is equal, one of them tells of all.
        key = f"{execution.runtime} {_digest(execution)}"
        if key not in self._steps:
            self._steps[key] = self._measured(execution)
        return self._steps[key]

    def _measured(self, execution: Execution) -> int | None:
        rows = _worst(execution, self.planned)
        if not len(rows):
            return 0
        try:
            found = trace(self.plan, self.inputs[rows], _name(execution), PYTORCH, pythons=self.pythons)
        except StropError:
            return None
        return found.alone_steps if _is_same(execution, found.answers[0], rows) else None


def _refuse_inexact(name: str, found: Trace, reasons: Mapping[str, str]) -> None:
    for row in found.rows:
        differing, steps = row.alone[0]
        if steps > (1 if row.name in reasons else 0):
            what = (
                f"{differing} of {row.values} codes of '{row.name}' ({row.kind}) differ, by up to {steps} steps, alone"
            )
            raise ParityError(what, where=name, fix="try another version of it; docs/parity.md says what to do")


def _worst(first: Execution, second: Execution) -> NDArray[np.intp]:
    """Return the inputs on which two executions differ most, worst first; none where they are equal."""
    pairs = [(codes, second.codes[role]) for role, codes in first.codes.items()]
    count = min(len(codes) for pair in pairs for codes in pair)
    steps = np.max([np.abs(a[:count].astype(np.int32) - b[:count]).max(axis=1) for a, b in pairs], axis=0)
    order: NDArray[np.intp] = np.argsort(-steps, kind="stable")[: min(_INPUTS, int((steps > 0).sum()))]
    return order


def _digest(execution: Execution) -> str:
    total = hashlib.sha256()
    for role, codes in sorted(execution.codes.items()):
        total.update(f"{role} {codes.shape}".encode() + np.ascontiguousarray(codes, "<i2").tobytes())
    return total.hexdigest()


def _is_same(execution: Execution, answers: Mapping[str, NDArray[Any]], rows: NDArray[np.intp]) -> bool:
    return all(np.array_equal(execution.codes[role][rows], codes) for role, codes in answers.items())


def _name(execution: Execution) -> str:
    """Name in the matrix of runtimes: a label may tell files apart besides."""
    versioned = f"{execution.runtime} {execution.version}"
    return versioned if execution.label.startswith(versioned) else execution.runtime.split(" ")[0]
