# SPDX-License-Identifier: Apache-2.0
"""Reading one table of a TOML file so strictly that every slip is named: file, key, value, nearest name, fix."""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from edge_contract.errors import RecipeError

__all__ = ["Table", "nearest"]

_REQUIRED: Any = object()


def nearest(word: str, known: Sequence[str], *, verb: str = "write") -> str:
    """Return the fix that offers the known name most like a word, or all of them if none is alike.

    Example:
        >>> nearest("epoch", ["epochs", "batch"]), nearest("xyz", ["epochs", "batch"], verb="use")
        ("write 'epochs'", "use one of 'batch', 'epochs'")
    """
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"{verb} '{close[0]}'"
    names = ", ".join(f"'{name}'" for name in sorted(known))
    return f"{verb} one of {names}" if names else "remove it"


class Table:
    """The keys of one table, each read once; ``done()`` refuses what nobody asked for.

    Args:
        values: The table.
        where: File and table, such as ``digits.toml [step 1]``.

    Example:
        >>> table = Table({"epochs": 3, "bach": 2}, "r.toml [step 1]")
        >>> table.integer("epochs", minimum=0), table.integer("batch", 64)
        (3, 64)
        >>> table.done()
        Traceback (most recent call last):
        edge_contract.errors.RecipeError: r.toml [step 1]: unknown key 'bach' (value 2); write 'batch'
    """

    def __init__(self, values: Any, where: str) -> None:
        self.where = where
        if not isinstance(values, Mapping):
            raise RecipeError(f"expected a table, found {_show(values)}", where=where, fix="write it as [table]")
        self._values, self._asked = values, list[str]()

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def refuse(self, key: str, what: str, fix: str) -> RecipeError:
        """Return the error for one key of this table."""
        return RecipeError(f"key '{key}': {what}", where=self.where, fix=fix)

    def _get(self, key: str, kind: type | tuple[type, ...], name: str, default: Any) -> Any:
        self._asked.append(key)
        if key not in self._values:
            if default is _REQUIRED:
                close = difflib.get_close_matches(key, [k for k in self._values if k not in self._asked], n=1)
                fix = f"write '{key}' in place of '{close[0]}'" if close else f"add {key} = …"
                raise RecipeError(f"key '{key}' is missing", where=self.where, fix=fix)
            return default
        value = self._values[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.refuse(key, f"expected {name}, found {_show(value)}", f"give {name}")
        return value

    def text(self, key: str, default: Any = _REQUIRED, *, among: Sequence[str] = ()) -> Any:
        """A text, if asked one of a closed set."""
        value = self._get(key, str, "a text in quotes", default)
        if among and value is not default and value not in among:
            raise self.refuse(key, f"unknown value {_show(value)}", nearest(value, among))
        if value == "" and default is not value:
            raise self.refuse(key, "an empty text", "name something or leave the key out")
        return value

    def integer(self, key: str, default: Any = _REQUIRED, *, minimum: int = 0) -> int:
        """A whole number with a lower bound."""
        value: int = self._get(key, int, "a whole number", default)
        if value < minimum:
            raise self.refuse(key, f"{value} is too small", f"give {minimum} or more")
        return value

    def number(self, key: str, default: Any = _REQUIRED, *, low: float = 0.0, high: float = math.inf) -> Any:
        """A finite number in [low, high]."""
        value = self._get(key, (int, float), "a number", default)
        if value is None or value is default:
            return value
        if not math.isfinite(value) or not low <= value <= high:
            fix = f"give {low:g} or more" if high == math.inf else f"give a number from {low:g} to {high:g}"
            raise self.refuse(key, f"{value} is out of range", fix)
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """A switch."""
        value: bool = self._get(key, bool, "true or false", default)
        return value

    def table(self, key: str, default: Any = _REQUIRED, *, where: str = "") -> "Table":
        """A table within; ``where`` replaces its place in messages."""
        self._asked.append(key)
        value = self._values.get(key, default)
        if value is _REQUIRED:
            raise RecipeError(f"table [{key}] is missing", where=self.where, fix=f"add [{key}]")
        return Table(value, where or f"{self.where} {key}")

    def texts(self, key: str, default: Any = ()) -> tuple[str, ...]:
        """A list of texts."""
        value = self._get(key, list, "a list of texts", list(default))
        for item in value:
            if not isinstance(item, str):
                raise self.refuse(key, f"expected a text in quotes, found {_show(item)}", "put it in quotes")
        return tuple(value)

    def pairs(self, key: str, default: Any = _REQUIRED) -> tuple[tuple[str, str], ...]:
        """A list of pairs of texts."""
        value = self._get(key, list, "a list of pairs", default)
        for item in value:
            if not isinstance(item, list) or len(item) != 2 or not all(isinstance(word, str) for word in item):
                raise self.refuse(
                    key, f"{_show(item)} is no pair of names", 'write [["of the student", "of the teacher"]]'
                )
        return tuple((first, second) for first, second in value)

    def raw(self, key: str, default: Any) -> Any:
        """The value as it stands, for a reader of its own."""
        self._asked.append(key)
        return self._values.get(key, default)

    def done(self) -> None:
        """Refuse the first key that nobody asked for.

        Raises:
            RecipeError: There is one.
        """
        for key, value in self._values.items():
            if key not in self._asked:
                free = [name for name in self._asked if name not in self._values]
                what = f"unknown key '{key}' (value {_show(value)})"
                raise RecipeError(what, where=self.where, fix=nearest(key, free or self._asked))


def _show(value: Any) -> str:
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 60 else text[:57] + "…"
