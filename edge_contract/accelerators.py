# SPDX-License-Identifier: Apache-2.0
"""What a target's accelerator maps: operators by the runtime that first ran them, its memory, its compiler's age.

The section ``[accelerator]`` of a target file (schema ``strop.target/2``). Conditions on single operators are code
(``export/edgetpu/rules.py``); what a number can say is data and stands here.
"""

from dataclasses import dataclass
from typing import Any, Final

from edge_contract.errors import TargetError
from edge_contract.fields import Fields

__all__ = ["ACCELERATORS", "Accelerator", "parse"]

ACCELERATORS: Final = ("edgetpu",)


@dataclass(frozen=True)
class Accelerator:
    """One accelerator.

    Attributes:
        name: ``edgetpu``.
        compiler: The compiler's version that the numbers below describe.
        runtime: Number of the runtime library that the compiler writes for unless told otherwise.
        loader: TFLite release whose operator versions the compiler's own interpreter still loads; newer ones make it
            refuse the whole file.
        sram_kib: Memory on the chip, for code, activations and cached parameters together.
        cache_kib: Parameters up to here certainly stay on the chip.
        operators: Operator → the first runtime number that maps it.
    """

    name: str
    compiler: str
    runtime: int
    loader: str
    sram_kib: int
    cache_kib: int
    operators: dict[str, int]

    def runs(self, operator: str, runtime: int) -> bool:
        """Return True if a runtime maps an operator under some condition.

        Example:
            >>> Accelerator("edgetpu", "16.0", 14, "2.5", 8192, 6144, {"TRANSPOSE": 14}).runs("TRANSPOSE", 13)
            False
        """
        return operator in self.operators and self.operators[operator] <= runtime


def parse(document: Any, where: str) -> Accelerator:
    """Return the accelerator in a decoded ``[accelerator]`` section.

    Raises:
        TargetError: A key is missing, unknown or of the wrong type; or more parameters are promised than memory is.
    """
    f = Fields(document, where, TargetError)
    found = Accelerator(
        f.text("name", among=ACCELERATORS),
        f.text("compiler"),
        f.integer("runtime", minimum=1),
        f.text("loader"),
        f.integer("sram_kib", minimum=1),
        f.integer("cache_kib", minimum=1),
        _operators(f.object("operators"), f"{where}.operators"),
    )
    unknown = sorted(f.rest())
    if unknown:
        raise TargetError(f"unknown key '{unknown[0]}'", where=where, fix="remove it or correct its spelling")
    if found.cache_kib > found.sram_kib:
        raise TargetError(f"cache_kib {found.cache_kib} is more than sram_kib {found.sram_kib}", where=where)
    return found


def _operators(document: dict[str, Any], where: str) -> dict[str, int]:
    f = Fields(document, where, TargetError)
    if not document:
        raise TargetError("no operator", where=where)
    return {name: f.integer(name, minimum=1) for name in document}
