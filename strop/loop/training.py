# SPDX-License-Identifier: Apache-2.0
"""Heal a student: its own recipe once more, on captured inputs that only its teacher labels.

The run folder holds ``heal.toml``, the derived recipe, with which ``strop compress run`` makes the same student again;
``.work``, from which an interrupted run goes on; and in the end the new compressed model, if it passed both gates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from compress import compressed, pipeline, report_files, sources
from compress import recipe as recipes
from compress.compressed import CompressedModel
from compress.evaluate import Difference, Score, paired_difference
from compress.final import Candidate, int8_logits
from compress.listener import Silent
from compress.quantize import weight_only
from compress.recipe import Recipe
from compress.report import CompressionReport, ModelRow, StepReport
from compress.report_parts import unpack
from compress.work import WorkFolder
from edge_contract import durable
from edge_contract.errors import BudgetError, DataError, UsageError
from strop.loop.derived import Healing, derive

__all__ = ["Healed", "Healing", "Progress", "present_folder", "retrain"]

RECIPE: Final = "heal.toml"
WORK: Final = ".work"
BEFORE: Final = "before"
DEFAULT: Final = Healing()

Progress = Callable[[str], None]
"""Is told one line at a time."""


@dataclass(frozen=True)
class Healed:
    """A student that was healed, and what it cost.

    Attributes:
        run: Folder of the new compressed model; ``strop export bundle`` takes it.
        old_accuracy, old_accuracy_before: On the old test split, after and before, with 95 % intervals.
        new_agreement, new_agreement_before: With the teacher, on captured inputs that no step saw.
        samples: Captured inputs that it learned from.
        words: What happened, in one line.
        old_change, new_change: After against before on the same inputs, paired.
    """

    run: Path
    old_accuracy: Score
    old_accuracy_before: Score
    new_agreement: Score
    new_agreement_before: Score
    samples: int
    words: str
    old_change: Difference
    new_change: Difference

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.run),
            "old_accuracy": self.old_accuracy.to_json(),
            "old_accuracy_before": self.old_accuracy_before.to_json(),
            "new_agreement": self.new_agreement.to_json(),
            "new_agreement_before": self.new_agreement_before.to_json(),
            "samples": self.samples,
            "words": self.words,
            "old_change": self.old_change.to_json(),
            "new_change": self.new_change.to_json(),
        }


def retrain(
    recipe: Path,
    captured: Path,
    out: Path,
    *,
    progress: Progress,
    healing: Healing = DEFAULT,
    teacher_weights: Path | None = None,
) -> Healed:
    """Heal the student of a recipe with captured inputs and return what came of it.

    The student goes on from its present weights. The teacher labels the captured inputs, which are mixed with the old
    training data; ranges are calibrated on both. A part of the captured inputs is held out of everything and judges at
    the end, beside the old test split: both are read once, by the student before and after.

    Args:
        recipe: The folder of the present compressed model, or the recipe in it.
        captured: Captured inputs, as ``strop fleet capture export`` writes them: an ``.npz``, or a folder of such.
        out: Folder of the run; one that was interrupted goes on, one that is finished is read again.
        progress: Told about each step and epoch.
        healing: Share of new inputs, epochs, limits.
        teacher_weights: In place of those that the recipe names.

    Raises:
        BudgetError: Healing missed a gate: it forgot more than ``most_forgotten`` points, or its gain on the new inputs
            is not above 0 beyond the 95 % interval. The report stays in ``out/.work``, and no model is left in ``out``.
        UsageError: Not a compressed model, or one without a teacher.
        StropError: As ``compress.pipeline.run``.
    """
    present = present_folder(recipe)
    before = compressed.load(present)
    place = before.recipe_path.parent if before.recipe_path.parent.is_dir() else present
    text = derive(
        before.recipe_text, healing, present=present, captured=captured, beside=place, teacher=teacher_weights
    )
    read = _written(text, out)
    data, _ = sources.load_data(read)
    samples = 0 if data.unlabelled is None else len(data.unlabelled)
    found = _finished(out, read, data.digest)
    if found is not None:
        progress("the run was finished before")
        return _healed(out, found, samples, healing)
    beside = {BEFORE: _candidate(before)}
    made = pipeline.run(read, out / WORK, listener=_Lines(progress), beside=beside)
    try:
        healed = _healed(out, made.report, samples, healing)
    except BudgetError:
        report_files.write(made.report, out / WORK)
        raise
    made.save(out)
    WorkFolder(out / WORK, read).clear()
    progress(healed.words)
    return healed


def present_folder(recipe: Path) -> Path:
    """Return the folder of the compressed model that a recipe, or a folder, belongs to.

    Raises:
        UsageError: There is none, so there are no weights to go on from.
    """
    folder = recipe if recipe.is_dir() else recipe.parent
    if not (folder / "model.json").is_file():
        fix = "give the folder that strop compress run wrote"
        raise UsageError("no compressed model is here, so there is no student to heal", where=str(recipe), fix=fix)
    return folder


def _written(text: str, out: Path) -> Recipe:
    """Write the derived recipe and read it as anybody would."""
    path = out / RECIPE
    try:
        out.mkdir(parents=True, exist_ok=True)
        durable.write(path, text.encode())
    except OSError as error:
        fix = "free some space, or name another folder"
        raise DataError(f"cannot be written: {error.strerror}", where=str(path), fix=fix) from error
    return recipes.load(path)


def _finished(out: Path, read: Recipe, digest: str) -> CompressionReport | None:
    """Return the report of a run of this recipe on these data that is whole, else None."""
    if not (out / report_files.NAME).is_file():
        return None
    report = report_files.read(out)
    is_same = report.recipe_digest == read.digest and report.data_digest == digest
    return report if is_same and report.row(BEFORE) is not None else None


def _candidate(before: CompressedModel) -> Candidate:
    """Return the present student in the form that is shipped."""
    logits = before.model.eval()
    if before.plan is not None:
        return _costing(before, int8_logits(before.plan))
    if before.form != "float32":
        return _costing(before, weight_only.simulate(before.model, before.form))
    return _costing(before, logits)


def _costing(before: CompressedModel, logits: Any) -> Candidate:
    if not before.report.test:
        raise DataError("the present model's report has no test split", where=before.name, fix="run its recipe again")
    row = before.report.test[-1]
    return Candidate(logits, row.macs, row.parameters, row.size_kb)


def _healed(out: Path, report: CompressionReport, samples: int, healing: Healing) -> Healed:
    """Judge by both gates and return what came out."""
    after, old = report.test[-1], _row(report.test, BEFORE)
    if not report.new:
        fix = "capture more, or hold out a larger share"
        raise DataError("no captured input was held out, so nothing can judge", where=str(out), fix=fix)
    new_after, new = report.new[-1], _row(report.new, BEFORE)
    old_change, new_change = _change(old, after), _change(new, new_after)
    words = (
        f"learned from {samples} captured inputs; old accuracy {old.score} → {after.score}, {old_change}; "
        f"agreement with the teacher on {new.score.samples} new inputs {new.score} → {new_after.score}, {new_change}"
    )
    if old_change.points < -healing.most_forgotten - 1e-9:  # the mean of a thousand shares is no exact number
        what = f"healing forgot {-old_change.points:.2f} points, more than {healing.most_forgotten:g}: {words}"
        raise BudgetError(what, where=str(out), fix="lower the share of new inputs, or train for longer")
    if new_change.low <= 0:
        what = f"healing gained nothing beyond chance on the new inputs: {words}"
        raise BudgetError(what, where=str(out), fix="capture more inputs, or look whether the drift is in the inputs")
    return Healed(
        out, after.score, old.score, new_after.score, new.score, samples, f"healed: {words}", old_change, new_change
    )


def _row(rows: tuple[ModelRow, ...], name: str) -> ModelRow:
    return next(row for row in rows if row.name == name)


def _change(before: ModelRow, after: ModelRow) -> Difference:
    first, second = (unpack(row.hits, row.score.samples) for row in (before, after))
    if first is None or second is None:
        raise DataError("a report without hits", where=after.name, fix="heal again in another folder")
    return paired_difference(first, second)


class _Lines(Silent):
    """Tells a run's steps and epochs as lines."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def epoch(self, log: Any) -> None:
        self._progress(f"epoch {log.epoch} of {log.epochs}, loss {log.loss:.4f}")

    def ends(self, done: StepReport, *, resumed: bool) -> None:
        time = "kept" if resumed else f"{done.seconds:.1f} s"
        self._progress(f"{done.kind} ({done.method}): {done.score} on the old validation split, {time}")
