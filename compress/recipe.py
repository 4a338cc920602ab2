# SPDX-License-Identifier: Apache-2.0
"""A recipe: what to compress, on which data, by which steps, within which budget. TOML in, frozen values out.

The file is described key by key in ``docs/recipe.md``.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from compress.recipe_table import Table
from compress.steps import Step, Train, read_step
from edge_contract import canonical, targets
from edge_contract.errors import ContractError, RecipeError
from edge_contract.preprocess import Preprocessing
from edge_contract.preprocess import keys as preprocess_keys
from edge_contract.preprocess import parse as parse_preprocess

__all__ = ["Budget", "DataSource", "ModelSource", "Recipe", "load", "parse"]

METRICS: Final = ("top1",)
NPZ: Final = ".npz"


class _PreprocessError(ContractError):
    """Carries the contract's complaint to ``_preprocess``, which words it for a recipe."""


@dataclass(frozen=True)
class ModelSource:
    """Where the model and its teacher come from.

    Attributes:
        source: ``module:callable`` that builds the network.
        weights: State dict that the recipe starts from; empty starts untrained.
        teacher, teacher_weights: The same for the teacher; empty means no teacher.
    """

    source: str
    weights: str = ""
    teacher: str = ""
    teacher_weights: str = ""


@dataclass(frozen=True)
class DataSource:
    """Where the samples come from.

    Attributes:
        source: ``module:callable`` that returns ``DataSplits``, or an ``.npz`` file.
        metric: ``top1``.
        augment: ``module:callable`` that changes training batches; empty changes nothing.
    """

    source: str
    metric: str = "top1"
    augment: str = ""


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
        text: The file, verbatim.
        path: Where it was read; relative paths in it start from its folder.
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
    recipe = Recipe(
        top.text("name"),
        top.text("target", "generic-x86", among=targets.names()),
        top.integer("seed", 0),
        top.integer("threads", 0),
        _model(top.table("model", where=f"{path.name} [model]")),
        _data(top.table("data", where=f"{path.name} [data]")),
        _preprocess(top.raw("preprocess", {}), f"{path.name} [preprocess]"),
        _steps(top.raw("step", []), path.name),
        _budget(top.table("budget", {}, where=f"{path.name} [budget]")),
        text,
        path,
    )
    top.done()
    _check_files(recipe)
    _check_order(recipe)
    return recipe


def _model(table: Table) -> ModelSource:
    model = ModelSource(
        _callable(table, "source"),
        table.text("weights", ""),
        _callable(table, "teacher", default=""),
        table.text("teacher_weights", ""),
    )
    table.done()
    if model.teacher_weights and not model.teacher:
        fix = "add teacher = 'module:callable', or remove it"
        raise table.refuse("teacher_weights", "weights without a teacher", fix)
    return model


def _callable(table: Table, key: str, **default: str) -> str:
    value: str = table.text(key, **default)
    module, _, name = value.partition(":")
    words = [*module.split("."), *name.split(".")]
    if value and not (name and all(word.isidentifier() for word in words)):
        what, fix = f"{value!r} is not module:callable", "write it like 'examples.digits.model:student'"
        if Path(value).suffix in (".pt", ".pt2", ".pth"):
            fix = "name the function that builds the network, and the file under weights"
        raise table.refuse(key, what, fix)
    return value


def _data(table: Table) -> DataSource:
    source: str = table.text("source")
    if not source.endswith(NPZ):
        source = _callable(table, "source")
    data = DataSource(source, table.text("metric", "top1", among=METRICS), _callable(table, "augment", default=""))
    table.done()
    return data


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


def _check_files(recipe: Recipe) -> None:
    named = [("model", "weights", recipe.model.weights), ("model", "teacher_weights", recipe.model.teacher_weights)]
    if recipe.data.source.endswith(NPZ):
        named.append(("data", "source", recipe.data.source))
    for table, key, name in named:
        # Teacher weights may be given on the command line instead, so their absence is judged when they are needed.
        if name and key != "teacher_weights" and not recipe.file(name).is_file():
            what = f"key '{key}': no file '{name}'"
            raise RecipeError(what, where=recipe.where(table), fix=f"put it at {recipe.file(name)}")


def _check_order(recipe: Recipe) -> None:
    """Refuse steps that cannot follow each other, before hours are spent on the first ones."""
    for number, step in enumerate(recipe.steps, 1):
        where = recipe.where(f"step {number}")
        if step.kind == "quantize" and number < len(recipe.steps):
            raise RecipeError("a step after quantize", where=where, fix="make quantize the last step")
        if step.kind == "distill" and not recipe.model.teacher:
            raise RecipeError("distill without a teacher", where=where, fix="add teacher to [model]")
    first = recipe.steps[0]
    if not recipe.model.weights and not (isinstance(first, Train) and first.training.epochs > 0):
        fix = "add weights to [model], or begin with a train or distill step"
        raise RecipeError(f"{first.kind} of an untrained model", where=recipe.where("step 1"), fix=fix)
