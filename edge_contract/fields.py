# SPDX-License-Identifier: Apache-2.0
"""Read a JSON object field by field: each fault names its path, and what nobody asked for is kept.

Keeping unknown fields lets an old agent pass a newer document on unharmed (python-tuf's ADR 8).
"""

from collections.abc import Mapping
from typing import Any

from edge_contract.canonical import as_float
from edge_contract.errors import ContractError, StropError

__all__ = ["Fields"]

_MISSING: Any = object()
_WORDS = {str: "text", int: "an integer", bool: "true or false", list: "a list", dict: "an object"}
_INT64 = 1 << 63  # databases and other languages hold no more


def _has_utf8(text: str) -> bool:
    """False for half of a surrogate pair, which JSON's escapes can spell and UTF-8 cannot."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


class Fields:
    """The fields of one JSON object, each read once; ``rest()`` gives what was not read.

    Args:
        document: The decoded object.
        where: Its path, for error messages, such as ``manifest.files[2]``.
        error: The leaf of the error tree to raise.

    Example:
        >>> fields = Fields({"size": 3, "colour": "red"}, "file")
        >>> fields.integer("size", minimum=0), fields.rest()
        (3, {'colour': 'red'})
        >>> fields.text("path")
        Traceback (most recent call last):
        edge_contract.errors.ContractError: file: field 'path' is missing
    """

    def __init__(self, document: Any, where: str, error: type[StropError] = ContractError) -> None:
        self.where, self.error = where, error
        if not isinstance(document, Mapping):
            raise error(f"expected an object, found {type(document).__name__}", where=where)
        self._document, self._read = document, set[str]()

    def _get(self, key: str, default: Any) -> Any:
        self._read.add(key)
        if key in self._document:
            return self._document[key]
        if default is _MISSING:
            raise self.error(f"field '{key}' is missing", where=self.where)
        return default

    def _typed(self, key: str, kind: type, default: Any) -> Any:
        value = self._get(key, default)
        if value is default and default is not _MISSING and key not in self._document:
            return value
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            found = f"{value!r}"[:60]
            raise self.error(f"expected {_WORDS[kind]}, found {found}", where=f"{self.where}.{key}")
        return value

    def text(self, key: str, default: Any = _MISSING, *, among: tuple[str, ...] = ()) -> str:
        """A text field, if asked one of a closed set."""
        value: str = self._typed(key, str, default)
        if isinstance(value, str) and not _has_utf8(value):
            raise self.error("the text has no UTF-8 form", where=f"{self.where}.{key}")
        if among and value not in among:
            fix = f"use one of {', '.join(among)}"
            raise self.error(f"unknown value {value!r}", where=f"{self.where}.{key}", fix=fix)
        return value

    def integer(self, key: str, default: Any = _MISSING, *, minimum: int | None = None) -> int:
        """An integer field with an optional lower bound."""
        value: int = self._typed(key, int, default)
        if isinstance(value, int) and not -_INT64 <= value < _INT64:
            raise self.error("more than 64 bits", where=f"{self.where}.{key}")
        if minimum is not None and value < minimum:
            raise self.error(f"{value} is below {minimum}", where=f"{self.where}.{key}")
        return value

    def number(self, key: str, default: Any = _MISSING) -> float:
        """A finite float field, as hex text or a JSON number."""
        value = self._get(key, default)
        try:
            return as_float(value, where=f"{self.where}.{key}")
        except ContractError as error:
            raise self.error(error.what, where=error.where) from error

    def flag(self, key: str, default: Any = _MISSING) -> bool:
        """A boolean field."""
        value: bool = self._typed(key, bool, default)
        return value

    def items(self, key: str, default: Any = _MISSING) -> list[Any]:
        """A list field."""
        value: list[Any] = self._typed(key, list, default)
        return value

    def object(self, key: str, default: Any = _MISSING) -> dict[str, Any]:
        """An object field."""
        value: dict[str, Any] = self._typed(key, dict, default)
        return value

    def digest(self, key: str, default: Any = _MISSING) -> str:
        """A SHA-256 field: 64 lower-case hexadecimal digits."""
        value = self.text(key, default)
        if value is not default and (len(value) != 64 or set(value) - set("0123456789abcdef")):
            raise self.error(f"{value[:70]!r} is not a SHA-256", where=f"{self.where}.{key}")
        return value

    def texts(self, key: str, default: Any = _MISSING) -> tuple[str, ...]:
        """A list of texts."""
        values = self.items(key, default)
        for i, value in enumerate(values):
            if not isinstance(value, str) or not _has_utf8(value):
                raise self.error(f"expected text, found {f'{value!r}'[:60]}", where=f"{self.where}.{key}[{i}]")
        return tuple(values)

    def integers(self, key: str, default: Any = _MISSING) -> tuple[int, ...]:
        """A list of integers."""
        values = self.items(key, default)
        for i, value in enumerate(values):
            if not isinstance(value, int) or isinstance(value, bool) or not -_INT64 <= value < _INT64:
                raise self.error(f"expected an integer, found {f'{value!r}'[:60]}", where=f"{self.where}.{key}[{i}]")
        return tuple(values)

    def numbers(self, key: str, default: Any = _MISSING) -> tuple[float, ...]:
        """A list of finite floats."""
        where = f"{self.where}.{key}"
        try:
            return tuple(as_float(v, where=f"{where}[{i}]") for i, v in enumerate(self.items(key, default)))
        except ContractError as error:
            raise self.error(error.what, where=error.where) from error

    def rest(self) -> dict[str, Any]:
        """What nobody asked for, to be written back unchanged."""
        return {key: value for key, value in self._document.items() if key not in self._read}
