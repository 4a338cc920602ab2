# SPDX-License-Identifier: Apache-2.0
"""What a compression cost and what it gave, as values; JSON in and out. The page is drawn by ``report_page``."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from compress.cost import Cost
from compress.evaluate import Difference, Score
from edge_contract.errors import DataError

__all__ = ["BudgetLine", "CompressionReport", "StepReport", "ModelRow", "without_times"]

SCHEMA: Final = "strop.compression/1"
TEXTS: Final = ("name", "target", "metric", "recipe_digest", "data_digest", "teacher_digest")


@dataclass(frozen=True)
class StepReport:
    """One step of the recipe, measured on the validation split.

    Attributes:
        number: 0 for the model that entered, else the step's number.
        kind, method: As in the recipe.
        score: Accuracy after the step.
        change: Against the model before the step, paired.
        drop: Points lost against the reference of the recipe; negative is a gain; None before there is one.
        cost: MACs, parameters, layers.
        size_kb: Bytes of the weights / 1000 (float32 with folded normalisation, or int8 with int32 biases).
        seconds: Wall-clock time of the step.
        losses: Mean training loss of each epoch.
        note: What was done, in one line.
    """

    number: int
    kind: str
    method: str
    score: Score
    change: Difference | None
    drop: float | None
    cost: Cost
    size_kb: float
    seconds: float
    losses: tuple[float, ...] = ()
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "kind": self.kind,
            "method": self.method,
            "validation": self.score.to_json(),
            "change": None if self.change is None else self.change.to_json(),
            "drop": self.drop,
            "cost": self.cost.to_json(),
            "size_kb": self.size_kb,
            "seconds": self.seconds,
            "losses": list(self.losses),
            "note": self.note,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "StepReport":
        change, drop = document["change"], document["drop"]
        return cls(
            int(document["number"]),
            str(document["kind"]),
            str(document["method"]),
            Score.from_json(document["validation"]),
            None if change is None else Difference.from_json(change),
            None if drop is None else float(drop),
            Cost.from_json(document["cost"]),
            float(document["size_kb"]),
            float(document["seconds"]),
            tuple(float(loss) for loss in document["losses"]),
            str(document["note"]),
        )


@dataclass(frozen=True)
class ModelRow:
    """One model on the test split, which was read once, after every decision.

    Attributes:
        name: ``teacher``, ``entering``, ``float`` or ``int8``.
        score: Accuracy.
        macs, parameters, size_kb: Cost.
    """

    name: str
    score: Score
    macs: int
    parameters: int
    size_kb: float

    def to_json(self) -> dict[str, Any]:
        cost = {"macs": self.macs, "parameters": self.parameters, "size_kb": self.size_kb}
        return {"name": self.name, "test": self.score.to_json(), **cost}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "ModelRow":
        score, size_kb = Score.from_json(document["test"]), float(document["size_kb"])
        return cls(str(document["name"]), score, int(document["macs"]), int(document["parameters"]), size_kb)


@dataclass(frozen=True)
class BudgetLine:
    """One line of the budget: what was allowed, what came out."""

    name: str
    limit: float
    value: float

    @property
    def is_kept(self) -> bool:
        """True if the result costs no more than allowed."""
        return self.value <= self.limit

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "limit": self.limit, "value": self.value, "kept": self.is_kept}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "BudgetLine":
        return cls(str(document["name"]), float(document["limit"]), float(document["value"]))


@dataclass(frozen=True)
class CompressionReport:
    """The whole run.

    Attributes:
        name, target, metric, seed: Of the recipe.
        recipe_digest, data_digest, teacher_digest: SHA-256 of the recipe's text, of all samples, of the teacher's
            weights (empty without a teacher): with the pins, everything that decides the result.
        steps: The entering model, then every step.
        budget: Its lines, judged on the validation split.
        test: Models on the test split; empty if the budget was missed, for then it is not read.
        change: int8 against float on the test split, paired; None without a quantize step.
        versions: Of the packages that computed.
        seconds: Of the whole run, without interruptions.
        notes: Sentences worth reading, such as a small calibration split.
    """

    name: str
    target: str
    metric: str
    seed: int
    recipe_digest: str
    data_digest: str
    teacher_digest: str
    steps: tuple[StepReport, ...]
    budget: tuple[BudgetLine, ...] = ()
    test: tuple[ModelRow, ...] = ()
    change: Difference | None = None
    versions: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def is_kept(self) -> bool:
        """True if every line of the budget is kept."""
        return all(line.is_kept for line in self.budget)

    def row(self, name: str) -> ModelRow | None:
        """Return the test row of a model, or None."""
        return next((row for row in self.test if row.name == name), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "name": self.name,
            "target": self.target,
            "metric": self.metric,
            "seed": self.seed,
            "recipe_digest": self.recipe_digest,
            "data_digest": self.data_digest,
            "teacher_digest": self.teacher_digest,
            "steps": [step.to_json() for step in self.steps],
            "budget": [line.to_json() for line in self.budget],
            "test": [row.to_json() for row in self.test],
            "change": None if self.change is None else self.change.to_json(),
            "versions": dict(self.versions),
            "seconds": self.seconds,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], *, where: str = "report.json") -> "CompressionReport":
        """Return the report in a JSON object.

        Raises:
            DataError: Another schema, or a field is missing or of the wrong type.
        """
        if document.get("schema") != SCHEMA:
            what = f"schema {document.get('schema')!r}"
            raise DataError(what, where=where, fix=f"give a report of schema {SCHEMA}")
        try:
            texts = {key: str(document[key]) for key in TEXTS}
            return cls(
                **texts,
                seed=int(document["seed"]),
                steps=tuple(StepReport.from_json(step) for step in document["steps"]),
                budget=tuple(BudgetLine.from_json(line) for line in document["budget"]),
                test=tuple(ModelRow.from_json(row) for row in document["test"]),
                change=None if document["change"] is None else Difference.from_json(document["change"]),
                versions=tuple(sorted((str(k), str(v)) for k, v in document["versions"].items())),
                seconds=float(document["seconds"]),
                notes=tuple(str(note) for note in document["notes"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"damaged report: {type(error).__name__} {error}"
            raise DataError(what, where=where, fix="run the recipe again") from error


def without_times(report: CompressionReport) -> CompressionReport:
    """Return the report as two runs of the same recipe must agree on it: without wall-clock times."""
    steps = tuple(replace(step, seconds=0.0) for step in report.steps)
    return replace(report, steps=steps, seconds=0.0)
