# SPDX-License-Identifier: Apache-2.0
"""What is examined of a run: one under way, before its test split is read, or a finished one in its folder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from compress import recipe as recipes
from compress import report_files, sources
from compress.checks.examine import examine, prepare
from compress.checks.outcome import CheckResult, failed_of
from compress.checks.subject import Subject
from compress.compressed import CompressedModel, load
from compress.evaluate import Logits
from compress.final import int8_logits
from compress.quantize.weight_only import simulate
from compress.recipe import Recipe
from compress.report import CompressionReport
from compress.run_state import RunState
from compress.splits import SealedSplit, Split, WorkingData
from compress.threads import threads
from compress.work import digest_of
from edge_contract.errors import DataError, RecipeError

__all__ = ["again", "finished", "notes_of", "under_way"]


def under_way(state: RunState, data: WorkingData, sealed: SealedSplit) -> Subject:
    """Return the model of a run after its last step, with its data; the test split stays closed."""
    shared = state.shared

    def reference(name: str) -> Logits:
        known = {"teacher": shared.teacher, "float": state.now.model}
        return _given(known[name] if name in known else sources.load_model(shared.recipe), name, shared.recipe)

    def tensors(split: Split) -> tuple[Tensor, Tensor]:
        found = shared.validation if split is data.validation else sources.tensors(shared.recipe, split)
        return found.x, found.y

    return Subject(shared.recipe, data, shared.labels, state.logits, state.plan, reference, tensors, sealed.digests)


def _given(model: nn.Module | None, name: str, recipe: Recipe) -> nn.Module:
    if model is None:
        where, fix = recipe.where("model"), "add a teacher, or compare with 'float'"
        raise RecipeError(f"a check compares with the {name}, and there is none", where=where, fix=fix)
    return model.eval()


def finished(compressed: CompressedModel, recipe: Recipe, teacher_weights: Path | None = None) -> Subject:
    """Return a finished run's model with the data of its recipe, read once more.

    Args:
        compressed: As loaded from its folder.
        recipe: Its own, or another one whose checks are wanted on the same data.
        teacher_weights: In place of ``[model] teacher_weights``; of the same teacher as in the run.

    Raises:
        DataError: The data, or the teacher, are others than those of the run.
        RecipeError: A name in the recipe leads nowhere.
    """
    data, sealed = sources.load_answered(recipe, teacher_weights)
    _check_same(data.digest, compressed.report.data_digest, "the data", recipe.where("data"))

    def reference(name: str) -> Logits:
        if name == "float":
            return compressed.model
        if name == "original":
            return sources.load_model(recipe).eval()
        teacher = _given(sources.load_teacher(recipe, teacher_weights), name, recipe)
        _check_same(digest_of(teacher), compressed.report.teacher_digest, "the teacher", recipe.where("model"))
        return teacher

    def tensors(split: Split) -> tuple[Tensor, Tensor]:
        found = sources.tensors(recipe, split)
        return found.x, found.y

    shipped = _shipped(compressed)
    return Subject(recipe, data, compressed.labels, shipped, compressed.plan, reference, tensors, sealed.digests)


def _check_same(found: str, known: str, what: str, where: str) -> None:
    if found != known:
        fix = "give those of the run, or run the recipe again"
        raise DataError(f"{what} changed since the run ({found[:12]}, not {known[:12]})", where=where, fix=fix)


def _shipped(compressed: CompressedModel) -> Logits:
    if compressed.plan is not None:
        return int8_logits(compressed.plan)
    return compressed.model if compressed.form == "float32" else simulate(compressed.model, compressed.form)


def again(folder: Path, *, recipe_file: Path | None = None, teacher_weights: Path | None = None) -> CompressionReport:
    """Run the checks on a finished run and return its report with them; the folder's report is written anew.

    Args:
        folder: Of the run.
        recipe_file: Take the checks of this recipe in place of the run's own; then nothing is written, so that nobody
            weakens what a run was asked.
        teacher_weights: See ``finished``.

    Raises:
        DataError: No finished run, or its data changed.
        RecipeError: See ``finished``.
    """
    compressed = load(folder)
    place = compressed.recipe_path if compressed.recipe_path.is_file() else folder / "recipe.toml"
    recipe = recipes.parse(compressed.recipe_text, place)
    if recipe_file is not None:
        recipe = replace(recipe, checks=recipes.load(recipe_file).checks)
    with threads(recipe.threads):
        subject = finished(compressed, recipe, teacher_weights)
        prepare(recipe, subject.data, subject.labels)
        checks = examine(subject)
    old = notes_of(compressed.report.checks)
    kept = tuple(note for note in compressed.report.notes if note not in old)
    report = replace(compressed.report, checks=checks, notes=(*kept, *notes_of(checks)))
    if recipe_file is None:
        report_files.write(report, folder)
    return report


def notes_of(checks: Sequence[CheckResult]) -> tuple[str, ...]:
    """Return a sentence for each failed check: what will stand in the way of a bundle."""
    return tuple(f"check '{one.name}' failed, so no bundle is made unless it is waived" for one in failed_of(checks))
