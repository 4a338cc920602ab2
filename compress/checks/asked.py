# SPDX-License-Identifier: Apache-2.0
"""The ``[[check]]`` tables of a recipe, read without PyTorch: one frozen class for each kind."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from compress.recipe_table import Table
from edge_contract.errors import RecipeError

__all__ = [
    "AGAINST",
    "ALWAYS",
    "KINDS",
    "OF_KIND",
    "PERTURBATIONS",
    "Balance",
    "CalibrationError",
    "Check",
    "Direction",
    "Functionality",
    "Gap",
    "Invariance",
    "Leakage",
    "Schema",
    "Slices",
    "read_checks",
]

AGAINST: Final = ("teacher", "original", "float")
OF_KIND: Final = {
    "image": ("brightness", "contrast", "shift", "noise", "flip"),
    "audio": ("gain", "shift", "noise"),
    "series": ("gain", "offset", "shift", "noise"),
}
"""Which perturbations inputs of each kind of preprocessing take."""
PERTURBATIONS: Final = tuple(sorted({name for names in OF_KIND.values() for name in names}))
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


@dataclass(frozen=True)
class Slices:
    """Accuracy by class or by a column of metadata. ``min`` in percent, ``max_drop`` in points; None asks nothing."""

    kind: ClassVar[str] = "slices"
    name: str
    by: str = "class"
    min: float | None = None
    max_drop: float | None = None
    against: str = ""
    samples: int = 20
    strict: bool = False


@dataclass(frozen=True)
class Functionality:
    """A small set of inputs with known answers, of which at least ``min`` percent must be right."""

    kind: ClassVar[str] = "functionality"
    name: str
    source: str
    min: float = 100.0


@dataclass(frozen=True)
class Invariance:
    """A perturbation that may change at most ``max_changed`` percent of the answers."""

    kind: ClassVar[str] = "invariance"
    name: str
    perturbation: str
    max_changed: float
    amount: float = 0.0
    strict: bool = False


@dataclass(frozen=True)
class Direction:
    """A perturbation under which the mean confidence in the answers may rise by at most ``max_rise`` points."""

    kind: ClassVar[str] = "direction"
    name: str
    perturbation: str
    max_rise: float = 0.0
    amount: float = 0.0
    strict: bool = False


@dataclass(frozen=True)
class Gap:
    """By how many points accuracy on the training split may exceed that on the validation split."""

    kind: ClassVar[str] = "gap"
    name: str
    max: float
    samples: int = 2000
    strict: bool = False


@dataclass(frozen=True)
class Balance:
    """Largest class of the training split over its smallest; fewest calibration samples of each class."""

    kind: ClassVar[str] = "balance"
    name: str
    max_ratio: float = 10.0
    min_calibration: int = 1


@dataclass(frozen=True)
class Leakage:
    """How many inputs stand in two splits: after preprocessing, or with ``coarse`` as the plan's integer codes."""

    kind: ClassVar[str] = "leakage"
    name: str
    max: int = 0
    coarse: bool = False


@dataclass(frozen=True)
class Schema:
    """Shape, type and range of the inputs: percent of values outside the training range, percent of flat inputs."""

    kind: ClassVar[str] = "schema"
    name: str
    max_outside: float = 1.0
    max_flat: float = 1.0


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error of at most ``max`` points."""

    kind: ClassVar[str] = "calibration-error"
    name: str
    max: float
    bins: int = 15
    strict: bool = False


Check = Slices | Functionality | Invariance | Direction | Gap | Balance | Leakage | Schema | CalibrationError
ALWAYS: Final[tuple[Check, ...]] = (Schema("schema"), Leakage("leakage"))
"""What every run is asked, unless its recipe has a table of the same kind: cheap, and never a matter of taste."""


def _slices(name: str, table: Table) -> Slices:
    by, least, drop = table.text("by", "class"), _percent(table, "min", None), _percent(table, "max_drop", None)
    if least is None and drop is None:
        raise RecipeError("a check that asks nothing", where=table.where, fix="add min, max_drop or both")
    against = table.text("against", "", among=AGAINST)
    if against and drop is None:
        raise table.refuse("against", "nothing is compared", "add max_drop, or remove it")
    samples = table.integer("samples", 20, minimum=1)
    return Slices(name, by, least, drop, against, samples, table.flag("strict", default=False))


def _functionality(name: str, table: Table) -> Functionality:
    return Functionality(name, table.text("source"), _percent(table, "min", 100.0))


def _invariance(name: str, table: Table) -> Invariance:
    what, amount = _perturbation(table)
    return Invariance(name, what, _percent(table, "max_changed"), amount, table.flag("strict", default=False))


def _direction(name: str, table: Table) -> Direction:
    what, amount = _perturbation(table)
    return Direction(name, what, _percent(table, "max_rise", 0.0), amount, table.flag("strict", default=False))


def _perturbation(table: Table) -> tuple[str, float]:
    what = table.text("perturbation", among=PERTURBATIONS)
    if what == "flip":
        return what, 0.0
    amount = table.number("amount")
    if amount <= 0 or (what == "shift" and amount != int(amount)):
        fix = "give a whole number of pixels or samples, 1 or more" if what == "shift" else "give more than 0"
        raise table.refuse("amount", f"{amount:g} is no amount of {what}", fix)
    return what, amount


def _gap(name: str, table: Table) -> Gap:
    most = _percent(table, "max")
    return Gap(name, most, table.integer("samples", 2000, minimum=1), table.flag("strict", default=False))


def _balance(name: str, table: Table) -> Balance:
    return Balance(name, table.number("max_ratio", 10.0, low=1.0), table.integer("min_calibration", 1))


def _leakage(name: str, table: Table) -> Leakage:
    return Leakage(name, table.integer("max", 0), table.flag("coarse", default=False))


def _schema(name: str, table: Table) -> Schema:
    return Schema(name, _percent(table, "max_outside", 1.0), _percent(table, "max_flat", 1.0))


def _calibration_error(name: str, table: Table) -> CalibrationError:
    most = _percent(table, "max")
    return CalibrationError(name, most, table.integer("bins", 15, minimum=1), table.flag("strict", default=False))


def _percent(table: Table, key: str, *default: float | None) -> Any:
    return table.number(key, *default, high=100.0)


KINDS: Final[Mapping[str, Callable[[str, Table], Check]]] = {
    "slices": _slices,
    "functionality": _functionality,
    "invariance": _invariance,
    "direction": _direction,
    "gap": _gap,
    "balance": _balance,
    "leakage": _leakage,
    "schema": _schema,
    "calibration-error": _calibration_error,
}


def read_checks(values: Any, file: str, kind_of_input: str) -> tuple[Check, ...]:
    """Return the checks of a recipe, those that every run is asked among them.

    Args:
        values: The value of ``check``: a list of tables.
        file: The recipe's name, for messages.
        kind_of_input: ``image``, ``audio`` or ``series``.

    Raises:
        RecipeError: A wrong key, kind or value, two checks of one name, a perturbation that such inputs do not take.

    Example:
        >>> tables = [{"kind": "slices", "name": "digits", "min": 90}]
        >>> [(one.kind, one.name) for one in read_checks(tables, "r.toml", "image")]
        [('schema', 'schema'), ('leakage', 'leakage'), ('slices', 'digits')]
    """
    if not isinstance(values, list):
        fix = "write [[check]] in double brackets"
        raise RecipeError("key 'check': expected [[check]] tables", where=file, fix=fix)
    named: dict[str, Check] = {}
    for number, value in enumerate(values, 1):
        table = Table(value, f"{file} [check {number}]")
        one = _read(table, kind_of_input)
        if one.name in named:
            raise table.refuse("name", f"'{one.name}' is another check's too", "give each check a name of its own")
        named[one.name] = one
    kinds = {one.kind for one in named.values()}
    always = tuple(one for one in ALWAYS if one.kind not in kinds)
    taken = next((one.name for one in always if one.name in named), "")
    if taken:
        what = f"key 'name': '{taken}' is the check that every run is asked"
        raise RecipeError(what, where=file, fix="give this check another name")
    return (*always, *named.values())


def _read(table: Table, kind_of_input: str) -> Check:
    kind: str = table.text("kind", among=tuple(KINDS))
    name: str = table.text("name", kind)
    if not _NAME.fullmatch(name):
        raise table.refuse("name", f"{name!r} cannot be typed after --waive", "use letters, digits, '.', '_' and '-'")
    found = KINDS[kind](name, table)
    table.done()
    if isinstance(found, Invariance | Direction) and found.perturbation not in OF_KIND[kind_of_input]:
        what = f"'{found.perturbation}' of inputs of kind '{kind_of_input}'"
        raise table.refuse("perturbation", what, f"use one of {', '.join(OF_KIND[kind_of_input])}")
    return found
