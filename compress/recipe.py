# SPDX-License-Identifier: Apache-2.0
"""A recipe: what to compress, on which data, by which steps, within which budget. TOML in, frozen values out.

The file is described key by key in ``docs/recipe.md``.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.checks.asked import ALWAYS, Check, read_checks
from compress.checks.perturb import kind_of
from compress.named_sources import DataSource, ModelSource, check_named_files, read_data, read_model
from compress.recipe_table import Table
from compress.search.space import Search, read_search
from compress.steps import Distill, Step, Train, read_step
from edge_contract import canonical, targets
from edge_contract.errors import ContractError, RecipeError
from edge_contract.preprocess import Preprocessing
from edge_contract.preprocess import keys as preprocess_keys
from edge_contract.preprocess import parse as parse_preprocess

__all__ = ["Budget", "DataSource", "ModelSource", "Recipe", "load", "parse"]


class _PreprocessError(ContractError):
    """Carries the contract's complaint to ``_preprocess``, which words it for a recipe."""


@dataclass(frozen=True)
class Budget:
    """What the result may cost; None asks nothing. ``max_drop`` is in points of the metric."""

    size_kb: float | None = None
    macs: int | None = None
    parameters: int | None = None
    latency_ms: float | None = None
    max_drop: float | None = None


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read without a fault.

    Attributes:
        name: Of the compressed model.
        target: Name of the target that it is for.
        seed: Of every random draw.
        threads: PyTorch's threads; 0 takes its default.
        model, data, preprocess, steps, budget: As in the file.
        search: What ``strop compress search`` varies; None without a ``[search]`` table.
        checks: What the result is examined for before it ships; a few are asked of every run.
        text: The file, verbatim.
        path: Where it was read; relative paths in it start from its folder. ``beside`` names another folder for that.
    """

    name: str
    target: str
    seed: int
    threads: int
    model: ModelSource
    data: DataSource
    preprocess: Preprocessing
    steps: tuple[Step, ...]
    budget: Budget
    text: str
    path: Path
    search: Search | None = None
    checks: tuple[Check, ...] = ALWAYS

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return canonical.digest(self.text.encode())

    def file(self, name: str) -> Path:
        """Return the path of a file that the recipe names."""
        return self.path.parent / name

    def where(self, table: str) -> str:
        """Return the place of a table, for messages."""
        return f"{self.path.name} [{table}]"


def load(path: Path) -> Recipe:
    """Return the recipe in a file.

    Raises:
        RecipeError: Missing, not TOML, a wrong key or value; one line with the fix.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecipeError("no such recipe", where=str(path), fix=_beside(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        fix = "give a TOML file in UTF-8"
        raise RecipeError(f"cannot be read: {type(error).__name__}", where=str(path), fix=fix) from error
    return parse(text, path)


def _beside(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path()
    found = sorted(one.name for one in folder.glob("*.toml"))[:5]
    return f"in {folder}/ there are {', '.join(found)}" if found else "give the path of a TOML file"


def parse(text: str, path: Path) -> Recipe:
    """Return the recipe in a text; ``path`` names it in messages and anchors relative paths.

    Raises:
        RecipeError: See ``load``.

    Example:
        >>> parse('name = "x"', Path("x.toml"))
        Traceback (most recent call last):
        edge_contract.errors.RecipeError: x.toml: table [model] is missing; add [model]
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"not TOML: {error}", where=path.name, fix="correct that line") from error
    top = Table(document, path.name)
    path = _placed(top, path)
    preprocess = _preprocess(top.raw("preprocess", {}), f"{path.name} [preprocess]")
    recipe = Recipe(
        top.text("name"),
        top.text("target", "generic-x86", among=targets.names()),
        top.integer("seed", 0),
        top.integer("threads", 0),
        read_model(top.table("model", where=f"{path.name} [model]")),
        read_data(top.table("data", where=f"{path.name} [data]"), path.parent),
        preprocess,
        _steps(top.raw("step", []), path.name),
        _budget(top.table("budget", {}, where=f"{path.name} [budget]")),
        text,
        path,
        read_search(top.table("search", where=f"{path.name} [search]")) if "search" in top else None,
        read_checks(top.raw("check", []), path.name, kind_of(preprocess)),
    )
    top.done()
    check_named_files(recipe.model, recipe.data, path)
    _check_order(recipe)
    return recipe


def _placed(top: Table, path: Path) -> Path:
    """Return where relative names start: beside the file, or in the folder that it names under ``beside``."""
    folder = top.text("beside", "")
    if folder and not (path.parent / folder).is_dir():
        raise top.refuse("beside", f"no folder '{folder}'", "name the folder that holds the recipe's files and modules")
    return path.parent / folder / path.name if folder else path


def _preprocess(values: Any, where: str) -> Preprocessing:
    table = Table(values, where)
    for key in preprocess_keys(table.raw("kind", "image")):
        table.raw(key, None)
    table.done()  # the contract refuses unknown keys too, but knows no better spelling
    try:
        return parse_preprocess(dict(values), where, _PreprocessError)
    except _PreprocessError as error:
        raise RecipeError(error.what, where=error.where, fix=error.fix or "see docs/recipe.md") from error


def _steps(values: Any, file: str) -> tuple[Step, ...]:
    if not isinstance(values, list):
        raise RecipeError("key 'step': expected [[step]] tables", where=file, fix="write [[step]] in double brackets")
    if not values:
        raise RecipeError("no step", where=file, fix="add a [[step]] with a kind")
    return tuple(read_step(Table(value, f"{file} [step {i}]")) for i, value in enumerate(values, 1))


def _budget(table: Table) -> Budget:
    macs = table.integer("macs", 0)
    parameters = table.integer("parameters", 0)
    budget = Budget(
        table.number("size_kb", None),
        macs or None,
        parameters or None,
        table.number("latency_ms", None),
        table.number("max_drop", None),
    )
    table.done()
    return budget


def _check_order(recipe: Recipe) -> None:
    """Refuse steps that cannot follow each other, before hours are spent on the first ones."""
    for number, step in enumerate(recipe.steps, 1):
        where = recipe.where(f"step {number}")
        if step.kind == "quantize" and number < len(recipe.steps):
            raise RecipeError("a step after quantize", where=where, fix="make quantize the last step")
        if step.kind == "cluster" and recipe.steps[number:] and recipe.steps[number].kind != "quantize":
            what = f"{recipe.steps[number].kind} after cluster would part the weights again"
            raise RecipeError(what, where=recipe.where(f"step {number + 1}"), fix="cluster last, or before quantize")
        if isinstance(step, Distill) and step.teacher == "recipe" and not recipe.model.teacher:
            raise RecipeError("distill without a teacher", where=where, fix="add teacher to [model]")
    _check_untrained(recipe)
    if recipe.data.unlabelled and not any(isinstance(step, Distill) for step in recipe.steps):
        fix = "add a distill step, or remove it"
        raise RecipeError("key 'unlabelled': no step learns without labels", where=recipe.where("data"), fix=fix)


def _check_untrained(recipe: Recipe) -> None:
    """Refuse first steps that a model without weights is no use for."""
    first = recipe.steps[0]
    if not recipe.model.is_trained and not (isinstance(first, Train) and first.training.epochs > 0):
        fix = "add weights to [model], or begin with a train or distill step"
        raise RecipeError(f"{first.kind} of an untrained model", where=recipe.where("step 1"), fix=fix)
    if not recipe.model.is_trained and isinstance(first, Distill) and first.teacher == "itself":
        what = "key 'teacher': 'itself' is untrained and knows nothing"
        raise RecipeError(what, where=recipe.where("step 1"), fix="add weights to [model], or begin with a train step")
