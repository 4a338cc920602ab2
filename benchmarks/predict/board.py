# SPDX-License-Identifier: Apache-2.0
"""A board's predictors as one JSON file: the board's key, and a predictor for each runtime and number of threads."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.predict.predictor import Forecast, Predictor
from edge_contract.errors import MeasurementError
from edge_contract.operator_work import OperatorWork

__all__ = ["SCHEMA", "Board", "named"]

SCHEMA: Final = "strop.latency-predictor/1"


def named(runtime: str, threads: int) -> str:
    """Return the name of a way to run: times of another number of threads say nothing of this one.

    Example:
        >>> named("litert", 1)
        'litert/1'
    """
    return f"{runtime}/{threads}"


@dataclass(frozen=True)
class Board:
    """What was learned of one board.

    Attributes:
        key: The board's, as edgebench results have it.
        ways: ``litert/1`` and so on → predictor.
    """

    key: str
    ways: Mapping[str, Predictor]

    def ask(self, way: str, operators: tuple[OperatorWork, ...], *, family: str = "") -> Forecast:
        """Return the forecast of a model in one runtime.

        Raises:
            MeasurementError: Nothing was learned of this runtime; or the model is unlike those that were measured.
        """
        found = self.ways.get(way)
        if found is None:
            known = ", ".join(sorted(self.ways)) or "none"
            raise MeasurementError(f"'{way}' was not measured", where=f"predictor of {self.key}", fix=f"known: {known}")
        return found.ask(operators, family=family)

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        ways = {name: found.to_json() for name, found in sorted(self.ways.items())}
        return {"schema": SCHEMA, "board": self.key, "ways": ways}

    def save(self, path: Path) -> None:
        """Write it; raises MeasurementError where it cannot be written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.to_json(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        except OSError as error:
            raise MeasurementError(f"cannot be written ({error.strerror})", where=str(path)) from error

    @classmethod
    def load(cls, path: Path) -> "Board":
        """Return the predictors in a file.

        Raises:
            MeasurementError: It is not there, or holds none.
        """
        fix = "learn it: strop bench predict learn RESULTS --models FOLDER --out board.json"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise MeasurementError(f"cannot be read: {error}", where=str(path), fix=fix) from error
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise MeasurementError("no latency predictor", where=str(path), fix=fix)
        if not isinstance(document.get("ways"), dict) or not isinstance(document.get("board"), str):
            raise MeasurementError("a damaged predictor", where=str(path), fix=fix)
        ways = {name: Predictor.from_json(found, f"{path}: {name}") for name, found in document["ways"].items()}
        return cls(document["board"], ways)
