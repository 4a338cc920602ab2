# SPDX-License-Identifier: Apache-2.0
"""Three ideas of what a model's time is made of; each is a constant and, for each class of operators, five rates.

``sum``: an operator takes rate × products + rate × gathered taps + rate × bytes moved + rate × bytes of weights + a
constant. A tap is gathered for every place of the output: with few channels that costs more than the products.
``tiles``: the same, with output channels rounded up to what kernels compute at a time.
``roofline``: the larger of computing (products, taps) and moving (bytes), and the constant: which of both binds is
decided from the rates so far, the rates from the decisions, a few times over (Williams, Waterman & Patterson 2009, as
alternating fits).

All are fitted to relative errors: a model of 20 µs counts as much as one of 2 ms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.predict.nnls import nnls
from edge_contract.operator_work import OperatorWork

__all__ = ["IDEAS", "Design", "Fit", "class_of"]

IDEAS: Final = ("sum", "tiles", "roofline")
TILE: Final = 16
ROUNDS: Final = 6
RIDGE: Final = 1e-3
"""Pulls rates that the measurements do not tell apart towards 0, against relative errors of about 0.1."""
_CLASSES: Final = {
    "add": "elementwise", "mul": "elementwise", "pool": "window", "mean": "window", "concat": "copy",
    "reshape": "copy", "pad": "copy", "quantize": "copy", "transpose": "copy",
}  # fmt: skip
_SCALES: Final = (1e6, 1e4, 1e5, 1e5, 1.0)
"""Rates are milliseconds for so many products, gathered taps, bytes moved, bytes of weights, operators."""
_TERMS: Final = len(_SCALES)
_COMPUTING, _MOVING = np.array([1, 1, 0, 0, 0], bool), np.array([0, 0, 1, 1, 0], bool)
Rates = tuple[float, ...]
Floats = NDArray[np.float64]


def class_of(operator: OperatorWork) -> str:
    """Return the class that an operator shares its rates with.

    Example:
        >>> class_of(OperatorWork("mean", "int8")), class_of(OperatorWork("conv", "int8"))
        ('int8 window', 'int8 conv')
    """
    return f"{operator.type} {_CLASSES.get(operator.kind, operator.kind)}"


@dataclass(frozen=True)
class Fit:
    """The rates that measurements gave an idea.

    Attributes:
        idea: One of ``IDEAS``.
        call: Milliseconds of a call without operators.
        rates: Class → milliseconds for 10⁶ products, 10⁴ gathered taps, 10⁵ bytes moved, 10⁵ bytes of weights, one
            operator, [5].
    """

    idea: str
    call: float
    rates: Mapping[str, Rates] = field(default_factory=dict)

    def ms(self, operators: Sequence[OperatorWork]) -> float:
        """Return the milliseconds of a model; a class without rates adds nothing.

        Example:
            >>> found = Fit("sum", 0.01, {"int8 dense": (0.1, 0, 0, 0, 0.002)})
            >>> round(found.ms([OperatorWork("dense", "int8", 500_000)]), 6)
            0.062
        """
        total = self.call
        for operator in operators:
            rates = self.rates.get(class_of(operator))
            if rates is not None:
                terms = [rate * amount for rate, amount in zip(rates, _amounts(operator, self.idea), strict=True)]
                total += self._together(terms)
        return total

    def _together(self, terms: Sequence[float]) -> float:
        products, taps, moved, weights, once = terms
        computing, moving = products + taps, moved + weights
        return (max(computing, moving) if self.idea == "roofline" else computing + moving) + once

    def to_json(self) -> dict[str, Any]:
        return {"idea": self.idea, "call": self.call, "rates": {name: list(one) for name, one in self.rates.items()}}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Fit":
        rates = {str(name): tuple(map(float, one)) for name, one in document["rates"].items()}
        return cls(str(document["idea"]), float(document["call"]), rates)


def _amounts(operator: OperatorWork, idea: str) -> Rates:
    inputs, outputs = operator.channels
    is_tiled = idea != "sum" and operator.kind in ("conv", "pointwise", "depthwise", "dense")
    products = operator.products * (-(-outputs // TILE) * TILE / max(1, outputs) if is_tiled else 1.0)
    each = {"conv": inputs * outputs, "pointwise": inputs * outputs, "depthwise": outputs}.get(operator.kind)
    taps = operator.products / max(1, each) if each else 0.0
    amounts = (products, taps, operator.inputs + operator.outputs, operator.weights, 1)
    return tuple(amount / scale for amount, scale in zip(amounts, _SCALES, strict=True))


class Design:
    """The amounts of many models by one idea, ready to be fitted to any part of them.

    Args:
        idea: One of ``IDEAS``.
        models: The operators of each model, [n].
    """

    def __init__(self, idea: str, models: Sequence[Sequence[OperatorWork]]) -> None:
        self.idea, self._count = idea, len(models)
        self._classes = sorted({class_of(operator) for model in models for operator in model})
        places = {name: place for place, name in enumerate(self._classes)}
        flat = [(number, operator) for number, model in enumerate(models) for operator in model]
        self._model = np.array([number for number, _ in flat], np.int64)
        self._class = np.array([places[class_of(operator)] for _, operator in flat], np.int64)
        self._amounts = np.array([_amounts(operator, idea) for _, operator in flat], np.float64).reshape(-1, _TERMS)

    def fit(self, chosen: Sequence[int], ms: Sequence[float]) -> Fit:
        """Return the rates that fit some of the models best, by relative error.

        Args:
            chosen: Numbers of the models, [m].
            ms: Their milliseconds, [m].

        Example:
            >>> models = [[OperatorWork("dense", "int8", 1_000_000 * n)] for n in (1, 2, 4)]
            >>> found = Design("sum", models).fit([0, 1, 2], [0.3, 0.5, 0.9])
            >>> round(found.call + found.rates["int8 dense"][4], 2), round(found.rates["int8 dense"][0], 2)
            (0.1, 0.2)
        """
        rows, times = np.asarray(chosen), np.asarray(ms, np.float64)
        x = self._solve(self._sums(self._amounts)[rows], times)
        if self.idea == "roofline":
            x = min((self._settled(start, rows, times) for start in self._starts(x)), key=lambda pair: pair[0])[1]
        rates = dict(zip(self._classes, map(tuple, x[1:].reshape(-1, _TERMS).tolist()), strict=True))
        return Fit(self.idea, float(x[0]), rates)

    def ms(self, fit: Fit) -> Floats:
        """Return what a fit of this idea says of every model, [n]; as ``Fit.ms``, all at once."""
        x = np.concatenate([[fit.call], *(fit.rates.get(name, (0.0,) * _TERMS) for name in self._classes)])
        amounts = self._binding(x) if self.idea == "roofline" else self._amounts
        found: Floats = self._sums(amounts) @ x
        return found

    def _starts(self, x: Floats) -> "tuple[NDArray[np.bool_], ...]":
        """Return first guesses of which operators compute: by the rates of the sum, and by products for each byte."""
        intensity = self._amounts @ _COMPUTING / np.maximum(self._amounts @ _MOVING, 1e-12)
        return self._is_computing(x), *(intensity > np.quantile(intensity, share) for share in (0.3, 0.7))

    def _settled(
        self, is_computing: "NDArray[np.bool_]", rows: "NDArray[np.int64]", times: Floats
    ) -> tuple[float, Floats]:
        """Alternate between rates and decisions; return the squared relative error at the end, and the rates."""
        for _ in range(ROUNDS):
            before = is_computing
            x = self._solve(self._sums(self._bound(before))[rows], times)
            is_computing = self._is_computing(x)
            if (before == is_computing).all():
                break
        said = (self._sums(self._bound(is_computing)) @ x)[rows]
        return float(((said / times - 1) ** 2).sum()), x

    def _is_computing(self, x: Floats) -> "NDArray[np.bool_]":
        terms = self._amounts * x[1:].reshape(-1, _TERMS)[self._class]
        found: NDArray[np.bool_] = terms @ _COMPUTING >= terms @ _MOVING
        return found

    def _binding(self, x: Floats) -> Floats:
        """Return the amounts without those that the other side of the roof hides, by the rates so far."""
        return self._bound(self._is_computing(x))

    def _bound(self, is_computing: "NDArray[np.bool_]") -> Floats:
        hidden = np.where(is_computing[:, None], _MOVING, _COMPUTING)
        return np.where(hidden, 0.0, self._amounts)

    def _sums(self, amounts: Floats) -> Floats:
        """Return the amounts of each model, [n, 1 + 5·classes]; the first column is the call."""
        wide = len(self._classes)
        place = self._model * wide + self._class
        sums = [np.bincount(place, amounts[:, term], self._count * wide) for term in range(_TERMS)]
        return np.concatenate([np.ones((self._count, 1)), np.stack(sums, 1).reshape(self._count, _TERMS * wide)], 1)

    def _solve(self, rows: Floats, ms: Floats) -> Floats:
        a = rows / ms[:, None]
        # A ridge in each column's own size: units must not matter.
        held = np.diag(RIDGE * np.sqrt(len(rows)) * np.sqrt((a**2).mean(0)))
        return nnls(np.concatenate([a, held]), np.concatenate([np.ones(len(rows)), np.zeros(len(held))]))
