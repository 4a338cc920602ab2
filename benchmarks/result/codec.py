# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses to JSON and back: each fault names file and key, and what nobody knows is kept.

A dataclass that is read here may have a field ``more``: keys of a newer version go there and are written back.
"""

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Final, TypeVar

from edge_contract.canonical import as_float
from edge_contract.errors import ContractError

__all__ = ["read", "short", "write"]

T = TypeVar("T")
_WORDS: Final = {str: "text", int: "an integer", bool: "true or false"}
DIGITS: Final = 7


def short(value: float) -> float:
    """Return a float with so many digits as a clock of nanoseconds can mean; files stay readable and small.

    Example:
        >>> short(1 / 3), short(1234.5678), short(2.0)
        (0.3333333, 1234.568, 2.0)
    """
    return float(f"{value:.{DIGITS}g}")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def write(value: Any) -> Any:
    """Return the JSON form; keys in the order of the fields, those of ``more`` last, absent options left out."""
    if is_dataclass(value) and not isinstance(value, type):
        found = {f.name: write(getattr(value, f.name)) for f in fields(value) if f.name != "more"}
        kept = {name: one for name, one in found.items() if one is not None}
        return {**kept, **getattr(value, "more", {})}
    if isinstance(value, Mapping):
        return {str(key): write(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [write(one) for one in value]
    return short(value) if isinstance(value, float) else value


def read(kind: type[T], document: Any, where: str) -> T:
    """Return a dataclass of the fields that a JSON object has.

    Args:
        kind: A frozen dataclass whose fields are text, numbers, tuples, mappings, options and such dataclasses.
        document: The decoded object.
        where: File and path, for messages.

    Raises:
        ContractError: A field is missing or of another type; ``where`` names file and key.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Size:
        ...     width: int
        ...     unit: str = "px"
        >>> read(Size, {"width": 3}, "a.json")
        Size(width=3, unit='px')
        >>> read(Size, {"width": "3"}, "a.json")
        Traceback (most recent call last):
        edge_contract.errors.ContractError: a.json: width: expected an integer, found '3'
    """
    found: T = _dataclass(kind, document, where, "")
    return found


def _refuse(what: str, where: str, path: str) -> ContractError:
    return ContractError(what, where=f"{where}: {path}" if path else where)


def _dataclass(kind: Any, document: Any, where: str, path: str) -> Any:
    if not isinstance(document, Mapping):
        raise _refuse(f"expected an object, found {f'{document!r}'[:60]}", where, path)
    hints, values = _hints(kind), dict[str, Any]()
    known = [f for f in fields(kind) if f.name != "more"]
    for one in known:
        below = f"{path}.{one.name}" if path else one.name
        if one.name in document:
            values[one.name] = _value(hints[one.name], document[one.name], where, below)
        elif one.default is MISSING and one.default_factory is MISSING:
            raise _refuse(f"key '{one.name}' is missing", where, path)
    rest = {key: value for key, value in document.items() if key not in {f.name for f in known}}
    return kind(**values, more=rest) if "more" in hints else kind(**values)


def _value(hint: Any, value: Any, where: str, path: str) -> Any:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        kind = next(one for one in inside if one is not type(None))
        return None if value is None else _value(kind, value, where, path)
    if hint is Any:
        return value
    if origin is tuple:
        return _tuple(inside, value, where, path)
    if origin is not None:  # the only other generic is a mapping with names as keys
        return _mapping(inside[1], value, where, path)
    if is_dataclass(hint):
        return _dataclass(hint, value, where, path)
    return _plain(hint, value, where, path)


def _tuple(inside: tuple[Any, ...], value: Any, where: str, path: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _refuse(f"expected a list, found {f'{value!r}'[:60]}", where, path)
    kinds = [inside[0]] * len(value) if inside[-1] is Ellipsis else list(inside)
    if len(kinds) != len(value):
        raise _refuse(f"expected {len(kinds)} values, found {len(value)}", where, path)
    pairs = enumerate(zip(kinds, value, strict=True))
    return tuple(_value(kind, one, where, f"{path}[{i}]") for i, (kind, one) in pairs)


def _mapping(kind: Any, value: Any, where: str, path: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _refuse(f"expected an object, found {f'{value!r}'[:60]}", where, path)
    return {str(key): _value(kind, one, where, f"{path}.{key}") for key, one in value.items()}


def _plain(kind: Any, value: Any, where: str, path: str) -> Any:
    if kind is float:
        try:
            return as_float(value)
        except ContractError as error:
            raise _refuse(error.what, where, path) from error
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _refuse(f"expected {_WORDS[kind]}, found {f'{value!r}'[:60]}", where, path)
    return value
