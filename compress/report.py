# SPDX-License-Identifier: Apache-2.0
"""What a compression cost and what it gave, as values; JSON in and out. The page is drawn by ``report_page``."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from compress.checks.outcome import CheckResult, failed_of
from compress.evaluate import Difference
from compress.quantize.fidelity import Fidelity
from compress.quantize.sensitivity import Sensitivity
from compress.report_parts import BudgetLine, ModelRow, Point, Rung, StepReport
from edge_contract.errors import DataError

__all__ = ["BudgetLine", "CompressionReport", "ModelRow", "Point", "Rung", "StepReport", "without_times"]

SCHEMA: Final = "strop.compression/2"
READS: Final = ("strop.compression/1", SCHEMA)
WORDS: Final = {"top1": "top-1", "agreement": "agreement"}
TEXTS: Final = ("name", "target", "metric", "recipe_digest", "data_digest", "teacher_digest")


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
        trials: What a search tried on the way to this recipe.
        new: How often each model answers as the teacher does on inputs without labels that no step saw; empty without.
        test_metric: Of the test split, which may have labels where the others have none; empty means ``metric``.
        checks: What the recipe's checks found on the shipped model; empty in old reports, and where the budget was
            missed.
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
    trials: tuple[Point, ...] = ()
    test_metric: str = ""
    new: tuple[ModelRow, ...] = ()
    checks: tuple[CheckResult, ...] = ()

    @property
    def metric_word(self) -> str:
        """What people call the metric on the validation split."""
        return WORDS.get(self.metric, self.metric)

    @property
    def test_word(self) -> str:
        """The same of the test split, which may have labels where the others have none."""
        return WORDS.get(self.test_metric or self.metric, self.metric)

    @property
    def ladder(self) -> tuple[Rung, ...]:
        """What the accuracy ladder tried, in the last step that had one."""
        return next((step.ladder for step in reversed(self.steps) if step.ladder), ())

    @property
    def fidelity(self) -> Fidelity | None:
        """The integers against the float network, of the last step that has them."""
        return next((step.fidelity for step in reversed(self.steps) if step.fidelity is not None), None)

    @property
    def sensitivity(self) -> Sensitivity | None:
        """What each layer alone costs, of the last step that measured it."""
        return next((step.sensitivity for step in reversed(self.steps) if step.sensitivity is not None), None)

    @property
    def is_kept(self) -> bool:
        """True if every line of the budget is kept."""
        return all(line.is_kept for line in self.budget)

    @property
    def failed_checks(self) -> tuple[CheckResult, ...]:
        """The checks that keep this model out of a bundle, unless they are waived."""
        return failed_of(self.checks)

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
            "trials": [point.to_json() for point in self.trials],
            "test_metric": self.test_metric,
            "new": [row.to_json() for row in self.new],
            "checks": [check.to_json() for check in self.checks],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], *, where: str = "report.json") -> "CompressionReport":
        """Return the report in a JSON object, of this schema or the one before it.

        Raises:
            DataError: Another schema, or a field is missing or of the wrong type.
        """
        if document.get("schema") not in READS:
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
                trials=tuple(Point.from_json(point) for point in document.get("trials", ())),
                test_metric=str(document.get("test_metric", "")),
                checks=tuple(CheckResult.from_json(check) for check in document.get("checks", ())),
                new=tuple(ModelRow.from_json(row) for row in document.get("new", ())),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"damaged report: {type(error).__name__} {error}"
            raise DataError(what, where=where, fix="run the recipe again") from error


def without_times(report: CompressionReport) -> CompressionReport:
    """Return the report as two runs of the same recipe must agree on it: without wall-clock times."""
    return replace(report, steps=tuple(_without_times(step) for step in report.steps), seconds=0.0)


def _without_times(step: StepReport) -> StepReport:
    ladder = tuple(replace(rung, seconds=0.0) for rung in step.ladder)
    return replace(step, seconds=0.0, latency_ms=None, ladder=ladder)
