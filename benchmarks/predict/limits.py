# SPDX-License-Identifier: Apache-2.0
"""What a predictor has seen: it refuses operators that were never measured, and models far beyond the measured ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.predict.ideas import class_of
from edge_contract.errors import MeasurementError
from edge_contract.operator_work import OperatorWork

__all__ = ["BEYOND", "Limits"]

BEYOND: Final = 2.0
"""Work and time up to this factor outside of what was measured are still predicted: rates are constants there."""
_FIX: Final = "measure it, or models like it, and learn again"


@dataclass(frozen=True)
class Limits:
    """The borders of what was measured.

    Attributes:
        kinds: Names of operators, such as ``int8 conv``.
        most: Class → the largest (products, bytes moved) of a model's operators of it.
        ms: The shortest and the longest time.
    """

    kinds: frozenset[str]
    most: Mapping[str, tuple[float, float]]
    ms: tuple[float, float]

    @classmethod
    def of(cls, models: Sequence[Sequence[OperatorWork]], ms: Sequence[float]) -> "Limits":
        """Return the borders of some measurements."""
        most: dict[str, tuple[float, float]] = {}
        for model in models:
            for name, (products, moved) in _totals(model).items():
                old = most.get(name, (0.0, 0.0))
                most[name] = max(old[0], products), max(old[1], moved)
        kinds = frozenset(operator.name for model in models for operator in model)
        return cls(kinds, most, (min(ms), max(ms)))

    def check(self, operators: Sequence[OperatorWork], ms: float) -> None:
        """Refuse a model that is unlike the measured ones.

        Args:
            operators: Of the model.
            ms: What was predicted.

        Raises:
            MeasurementError: Names the operator, the work or the time that was never measured.

        Example:
            >>> Limits.of([[OperatorWork("conv", "int8", 100, 5, 5)]], [1.0]).check([OperatorWork("lstm", "int8")], 1.0)
            Traceback (most recent call last):
            edge_contract.errors.MeasurementError: predictor: no model with 'int8 lstm' was measured; measure it, or models like it, and learn again
        """  # noqa: E501
        unknown = sorted({operator.name for operator in operators} - self.kinds)
        if unknown or not operators:
            what = f"no model with '{unknown[0]}' was measured" if unknown else "a model without operators"
            raise MeasurementError(what, where="predictor", fix=_FIX)
        for name, amounts in _totals(operators).items():
            for amount, most, unit in zip(amounts, self.most[name], ("products", "bytes"), strict=True):
                if amount > BEYOND * most:
                    what = f"{amount:.3g} {unit} of '{name}', the largest that was measured has {most:.3g}"
                    raise MeasurementError(what, where="predictor", fix=_FIX)
        if not self.ms[0] / BEYOND <= ms <= self.ms[1] * BEYOND:
            what = f"about {ms:.3g} ms, and {self.ms[0]:.3g} to {self.ms[1]:.3g} ms were measured"
            raise MeasurementError(what, where="predictor", fix=_FIX)

    def to_json(self) -> dict[str, Any]:
        return {"kinds": sorted(self.kinds), "most": {k: list(v) for k, v in self.most.items()}, "ms": list(self.ms)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Limits":
        most = {str(name): (float(products), float(moved)) for name, (products, moved) in document["most"].items()}
        low, high = document["ms"]
        return cls(frozenset(document["kinds"]), most, (float(low), float(high)))


def _totals(operators: Sequence[OperatorWork]) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    for operator in operators:
        products, moved = found.get(class_of(operator), (0.0, 0.0))
        found[class_of(operator)] = products + operator.products, moved + operator.moved
    return found
