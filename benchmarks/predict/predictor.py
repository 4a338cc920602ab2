# SPDX-License-Identifier: Apache-2.0
"""The predictor of one board and runtime: milliseconds of a model from its operators, with an interval, or a refusal.

It orders candidates and leaves out those that cannot keep a budget. It replaces no measurement: a result of a model is
what the board's clock says of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.predict.conformal import interval
from benchmarks.predict.ideas import Fit
from benchmarks.predict.limits import Limits
from edge_contract.errors import MeasurementError
from edge_contract.operator_work import OperatorWork

__all__ = ["COVERAGE", "Forecast", "Judged", "Measured", "Predictor"]

COVERAGE: Final = 0.9


@dataclass(frozen=True)
class Measured:
    """One model that was timed on the board.

    Attributes:
        name: Of the model, for people.
        family: Networks of one design in several widths are one family.
        operators: Of its file.
        ms: Median latency.
    """

    name: str
    family: str
    operators: tuple[OperatorWork, ...]
    ms: float


@dataclass(frozen=True)
class Forecast:
    """Milliseconds that are expected of a model that was not measured.

    Attributes:
        ms: The expectation.
        low, high: Interval; infinite where too few families were measured.
        coverage: Of the interval, nominal.
    """

    ms: float
    low: float
    high: float
    coverage: float = COVERAGE

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"about {self.ms:.3g} ms, without an interval: too few families were measured"
        return f"about {self.ms:.3g} ms [{self.low:.3g}, {self.high:.3g}] with {self.coverage:.0%}"


@dataclass(frozen=True)
class Judged:
    """How well an idea predicts families that it has not seen, one after the other left out.

    Attributes:
        median, p90: Quantiles of |predicted / measured − 1|.
        coverage: Share of measurements inside of intervals that were made without their family; None: no interval.
        width: Median of high / low of these intervals.
        refused: Measurements that a predictor without their family refuses; they are in no other number.
    """

    median: float
    p90: float
    coverage: float | None
    width: float | None
    refused: int

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Predictor:
    """What was learned of one runtime on one board.

    Attributes:
        fit: To all measurements.
        without: Family → the fit to all the other families.
        errors: (family, |log(measured / predicted)| by the fit without that family), of each measurement.
        limits: What was measured: beyond it the predictor refuses.
        judged: Its own cross-validated error.
    """

    fit: Fit
    without: Mapping[str, Fit]
    errors: tuple[tuple[str, float], ...]
    limits: Limits
    judged: Judged

    @property
    def measurements(self) -> int:
        """How many models it has learned from."""
        return len(self.errors)

    @property
    def families(self) -> tuple[str, ...]:
        """What they belong to."""
        return tuple(sorted(self.without))

    def ask(self, operators: Sequence[OperatorWork], *, family: str = "", coverage: float = COVERAGE) -> Forecast:
        """Return the forecast for a model.

        Args:
            operators: Of its file.
            family: Where it belongs, if to one of ``families``: then the interval is narrower.
            coverage: Of the interval.

        Raises:
            MeasurementError: The model is unlike those that were measured; names in what.
        """
        ms = self.fit.ms(operators)
        self.limits.check(operators, ms)
        predicted = {name: fit.ms(operators) for name, fit in self.without.items()}
        low, high = interval(
            [predicted[name] for name, _ in self.errors],
            [error for _, error in self.errors],
            [name for name, _ in self.errors],
            coverage=coverage,
            is_known=family in self.without,
        )
        return Forecast(ms, min(low, ms), max(high, ms), coverage)

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "fit": self.fit.to_json(),
            "without": {name: fit.to_json() for name, fit in sorted(self.without.items())},
            "errors": [[family, error] for family, error in self.errors],
            "limits": self.limits.to_json(),
            "measurements": self.measurements,
            "cross_validated": self.judged.to_json(),
        }

    @classmethod
    def from_json(cls, document: Any, where: str = "predictor") -> "Predictor":
        """Return the predictor in a JSON object.

        Raises:
            MeasurementError: It is none.
        """
        try:
            return cls(
                Fit.from_json(document["fit"]),
                {str(name): Fit.from_json(fit) for name, fit in document["without"].items()},
                tuple((str(family), float(error)) for family, error in document["errors"]),
                Limits.from_json(document["limits"]),
                Judged(**document["cross_validated"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            fix = "learn it again: strop bench predict learn"
            raise MeasurementError(f"a damaged predictor: {error}", where=where, fix=fix) from error
