# SPDX-License-Identifier: Apache-2.0
"""Small named sets with known answers: what a model must be able to do at the very least."""

from pathlib import Path

import numpy as np

from compress.checks.asked import Functionality
from compress.checks.outcome import FAILED, PASSED, CheckResult, Row
from compress.checks.subject import Subject
from compress.named_sources import NPZ
from compress.recipe import Recipe
from compress.sources.archives import read_labelled
from compress.sources.names import call, resolve
from compress.splits import Split
from edge_contract.errors import DataError, RecipeError

__all__ = ["functionality", "load_set"]

MOST_NAMED = 20


def functionality(check: Functionality, subject: Subject) -> CheckResult:
    """Return the share of right answers to the set.

    The set is no sample of anything, so there is no interval: the share itself is judged.
    """
    wanted = load_set(check, subject.recipe, subject.labels, subject.recipe.where(f"check '{check.name}'"))
    answers = subject.logits_of(wanted.x).argmax(1).numpy()
    right = np.asarray(answers == wanted.y)
    share = 100 * float(right.mean())
    wrong = np.flatnonzero(~right)[:MOST_NAMED]
    rows = tuple(_row(number, right, answers, wanted, subject.labels) for number in wrong.tolist())
    passed = share >= check.min
    words = f"{int(right.sum())} of {right.size} right, asked {check.min:g} %"
    if rows:
        words += f"; {rows[0].name} {rows[0].words}"
    return CheckResult(check.name, check.kind, passed, share, check.min, "%", words, is_least=True, rows=rows)


def _row(number: int, right: "np.ndarray", answers: "np.ndarray", wanted: Split, labels: tuple[str, ...]) -> Row:
    names = wanted.metadata.get("name")
    name = f"number {number}" if names is None else str(names[number])
    said, known = (labels[int(one)] for one in (answers[number], wanted.y[number]))
    return Row(
        name, 0.0, None, None, 1, PASSED if right[number] else FAILED, f"is called '{said}' instead of '{known}'"
    )


def load_set(check: Functionality, recipe: Recipe, labels: tuple[str, ...], where: str) -> Split:
    """Return the inputs and answers that a check names: a folder of images, an ``.npz``, or ``module:function``.

    Raises:
        RecipeError: No such file, folder, module or function.
        DataError: The set is empty, has no labels or classes that the model does not know.
    """
    found = _loaded(check, recipe, labels, where)
    if not len(found):
        raise DataError("the set is empty", where=where, fix="give it at least one input")
    low, high = int(found.y.min()), int(found.y.max())
    if low < 0 or high >= len(labels):
        what = f"classes {low} to {high} for a model of {len(labels)}"
        raise DataError(what, where=where, fix=f"use 0 to {len(labels) - 1}")
    return found


def _loaded(check: Functionality, recipe: Recipe, labels: tuple[str, ...], where: str) -> Split:
    place = recipe.file(check.source)
    if ":" in check.source:
        function = resolve(check.source, where=where, key="source", folder=recipe.path.parent)
        found = call(function, check.source, where, DataError)
        if not isinstance(found, Split):
            fix = "return compress.sources.Split(x, y)"
            raise DataError(f"{check.source} returned a {type(found).__name__}", where=where, fix=fix)
        return found
    _check_there(place, check.source, where)
    if check.source.endswith(NPZ):
        return read_labelled(place)
    from compress.sources.folders import read_labelled_images

    return read_labelled_images(place, recipe.preprocess, labels)


def _check_there(place: Path, source: str, where: str) -> None:
    is_there = place.is_file() if source.endswith(NPZ) else place.is_dir()
    if not is_there:
        what = f"key 'source': {source!r} is not there, or nothing that can be read"
        fix = "write module:function, an .npz with x and y, or a folder CLASS/*.png"
        raise RecipeError(what, where=where, fix=fix)
