# SPDX-License-Identifier: Apache-2.0
"""What a search may vary: the ``[search]`` table of a recipe, and the recipe of one trial. PyTorch is not needed."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from compress.recipe_table import Table, nearest
from edge_contract.errors import RecipeError

__all__ = ["OBJECTIVES", "SAMPLERS", "Choice", "Search", "read_search", "varied"]

OBJECTIVES: Final = ("accuracy", "size_kb", "macs", "parameters", "latency_ms")
SAMPLERS: Final = ("tpe", "nsga2", "random", "grid")
Value = str | int | float | bool


@dataclass(frozen=True)
class Choice:
    """One thing that varies.

    Attributes:
        key: Path in the recipe: ``step.2.target.macs`` is key ``macs`` of table ``target`` of the second step.
        values: What it may be.
    """

    key: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Search:
    """The ``[search]`` table.

    Attributes:
        trials: How many recipes are tried.
        objectives: The first is maximised if it is ``accuracy``; costs are minimised.
        sampler: Who proposes the next trial.
        choices: What varies.
    """

    trials: int
    objectives: tuple[str, ...]
    sampler: str
    choices: tuple[Choice, ...]


def read_search(table: Table) -> Search:
    """Return the search in a ``[search]`` table.

    Raises:
        RecipeError: An unknown key, objective or sampler; no choice, or one of fewer than two values.

    Example:
        >>> choice = {"key": "step.1.epochs", "values": [2, 4]}
        >>> read_search(Table({"choice": [choice]}, "r.toml [search]")).choices
        (Choice(key='step.1.epochs', values=(2, 4)),)
    """
    search = Search(
        table.integer("trials", 20, minimum=1),
        table.texts("objectives", ("accuracy", "size_kb")),
        table.text("sampler", "tpe", among=SAMPLERS),
        _choices(table),
    )
    table.done()
    for name in search.objectives:
        if name not in OBJECTIVES:
            raise table.refuse("objectives", f"unknown value '{name}'", nearest(name, OBJECTIVES))
    if len(set(search.objectives)) != len(search.objectives) or not search.objectives:
        raise table.refuse("objectives", "none, or one twice", f"name some of {', '.join(OBJECTIVES)}, each once")
    return search


def _choices(table: Table) -> tuple[Choice, ...]:
    given = table.raw("choice", [])
    if not isinstance(given, list) or not given:
        fix = 'add [[search.choice]] with key = "step.1.epochs" and values = [2, 4]'
        raise RecipeError("nothing to choose", where=table.where, fix=fix)
    found = tuple(_choice(Table(one, f"{table.where} choice {i}")) for i, one in enumerate(given, 1))
    keys = [choice.key for choice in found]
    for key in keys:
        if keys.count(key) > 1:
            raise table.refuse("choice", f"'{key}' twice", "put all its values into one choice")
    return found


def _choice(table: Table) -> Choice:
    key, values = table.text("key"), table.raw("values", [])
    table.done()
    if not isinstance(values, list) or len(values) < 2 or not all(isinstance(v, str | int | float) for v in values):
        raise table.refuse("values", f"{values!r}", "give two or more texts, numbers or flags in a list")
    if len({repr(value) for value in values}) != len(values):
        raise table.refuse("values", "one value twice", "give each value once")
    return Choice(key, tuple(values))


def varied(document: Mapping[str, Any], chosen: Mapping[str, Value], *, where: str) -> dict[str, Any]:
    """Return a recipe's document with some keys changed, and without its ``[search]`` table.

    Args:
        document: As ``tomllib`` reads it.
        chosen: Path → value.
        where: The file, for messages.

    Raises:
        RecipeError: A path that leads nowhere: names the part and the nearest name.

    Example:
        >>> recipe = {"step": [{"kind": "prune", "target": {"macs": 0.5}}], "search": {}}
        >>> varied(recipe, {"step.1.target.macs": 0.3}, where="r.toml")
        {'step': [{'kind': 'prune', 'target': {'macs': 0.3}}]}
    """
    changed = {key: copy.deepcopy(value) for key, value in document.items() if key != "search"}
    for path, value in chosen.items():
        *way, last = path.split(".")
        place: Any = changed
        for part in way:
            place = _enter(place, part, path, where)
        if not isinstance(place, dict):
            raise _lost(path, last, [], where)
        place[last] = value  # a key that the step does not know is refused when the trial's recipe is read
    return changed


def _enter(place: Any, part: str, path: str, where: str) -> Any:
    if isinstance(place, list) and re.fullmatch(r"[1-9]\d*", part) and int(part) <= len(place):
        return place[int(part) - 1]
    if isinstance(place, dict) and isinstance(place.get(part), dict | list):
        return place[part]
    if isinstance(place, dict) and part not in place and part == "budget":
        return place.setdefault(part, {})
    names = list(map(str, range(1, len(place) + 1))) if isinstance(place, list) else list(place)
    raise _lost(path, part, names, where)


def _lost(path: str, part: str, names: list[str], where: str) -> RecipeError:
    return RecipeError(f"key '{path}' leads nowhere at '{part}'", where=f"{where} [search]", fix=nearest(part, names))
