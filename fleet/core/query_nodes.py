# SPDX-License-Identifier: Apache-2.0
"""What a query is made of: each node prints itself, and tells whether a device's facts fit. Pure.

A fact is a text, a number, a truth value, or a tuple of them; a tuple fits if one of its values does. A fact that is
not known fits nothing: ``drift>0.2`` leaves out a device without a drift window, and ``not drift>0.2`` takes it in.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

__all__ = ["COMPARISONS", "FLAG_WORDS", "All", "AnyOf", "Everything", "Is", "Measure", "Node", "Not", "quoted"]

Facts = Mapping[str, Any]

FLAG_WORDS: Final = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
_PLAIN: Final = re.compile(r"[^\s()<>=!:,\"'\\]+\Z")
_RESERVED: Final = frozenset({"and", "or", "not", "in"})
_BUNDLE_PREFIX: Final = re.compile(r"[0-9a-f]{6,64}\Z")
_VERSION: Final = re.compile(r"v?\d+(\.\d+)*")

COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}


def quoted(text: str) -> str:
    r"""Return a word as a query writes it: in quotes where it would be read as something else.

    Example:
        >>> quoted("rpi5"), quoted('say "a b"'), quoted("not")
        ('rpi5', '"say \\"a b\\""', '"not"')
    """
    if _PLAIN.match(text) and text.lower() not in _RESERVED:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _field(name: str) -> str:
    """``model:digits`` is one fact with a name inside."""
    head, colon, rest = name.partition(":")
    return f"{head}:{quoted(rest)}" if colon else name


@lru_cache(maxsize=4096)
def _glob(text: str) -> re.Pattern[str]:
    """A star takes the shortest span that goes on, and never thinks again: no query makes the match slow."""
    head, *rest = (re.escape(part).replace(r"\?", ".") for part in text.split("*"))
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1] if part)
    return re.compile(head + (f"{middle}.*{rest[-1]}" if rest else ""), re.IGNORECASE | re.DOTALL)


def _equals(fact: Any, wanted: str) -> bool:
    if isinstance(fact, tuple):
        return any(_equals(one, wanted) for one in fact)
    if isinstance(fact, bool):
        return FLAG_WORDS.get(wanted.lower()) is fact
    if isinstance(fact, str):
        return _glob(wanted).fullmatch(fact) is not None
    try:
        return fact is not None and float(wanted) == fact
    except ValueError:
        return False


def _version(text: str) -> tuple[int, ...] | None:
    """Return the numbers at the front of a version, without the zeros at their end; None for no version."""
    found = _VERSION.match(text)
    if found is None:
        return None
    numbers = [int(part[:18]) for part in found[0].removeprefix("v").split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _compares(fact: Any, op: str, wanted: "float | str") -> bool:
    if isinstance(fact, tuple):
        return any(_compares(one, op, wanted) for one in fact)
    if isinstance(wanted, str):
        here, there = _version(fact) if isinstance(fact, str) else None, _version(wanted)
        return here is not None and there is not None and COMPARISONS[op](here, there)
    if isinstance(fact, str):  # a label's value is text
        try:
            fact = float(fact)
        except ValueError:
            return False
    return fact is not None and not isinstance(fact, bool) and COMPARISONS[op](fact, wanted)


@dataclass(frozen=True)
class Everything:
    """Fits every device: ``all``."""

    def __str__(self) -> str:
        return "all"

    def matches(self, facts: Facts) -> bool:
        """True."""
        return True


@dataclass(frozen=True)
class Is:
    """One of the values, each with ``*`` and ``?`` as wildcards, upper and lower case alike."""

    field: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{_field(self.field)}:{quoted(self.values[0])}"
        return f"{_field(self.field)} in ({','.join(map(quoted, self.values))})"

    def matches(self, facts: Facts) -> bool:
        """True if the fact is one of the values; a bundle fits by its first six digits or more."""
        fact = facts.get(self.field)
        if fact is None:
            return False
        if self.field.startswith("model:"):
            return any(_equals(fact, _bundle(value)) for value in self.values)
        return any(_equals(fact, value) for value in self.values)


def _bundle(value: str) -> str:
    return f"{value}*" if _BUNDLE_PREFIX.match(value.lower()) else value


@dataclass(frozen=True)
class Measure:
    """A comparison with a number, or with a version where ``value`` is text."""

    field: str
    op: str
    value: float | str

    def __str__(self) -> str:
        value = quoted(self.value) if isinstance(self.value, str) else repr(self.value)
        return f"{_field(self.field)}{self.op}{value}"

    def matches(self, facts: Facts) -> bool:
        """True if a number of the fact compares so."""
        return _compares(facts.get(self.field), self.op, self.value)


@dataclass(frozen=True)
class Not:
    """The contrary."""

    of: "Node"

    def __str__(self) -> str:
        return f"not {_inside(self.of)}"

    def matches(self, facts: Facts) -> bool:
        """True if the other one is not."""
        return not self.of.matches(facts)


@dataclass(frozen=True)
class All:
    """Every one of two or more."""

    of: tuple["Node", ...]

    def __str__(self) -> str:
        return " and ".join(map(_inside, self.of))

    def matches(self, facts: Facts) -> bool:
        """True if all are."""
        return all(one.matches(facts) for one in self.of)


@dataclass(frozen=True)
class AnyOf:
    """At least one of two or more."""

    of: tuple["Node", ...]

    def __str__(self) -> str:
        return " or ".join(map(_inside, self.of))

    def matches(self, facts: Facts) -> bool:
        """True if one is."""
        return any(one.matches(facts) for one in self.of)


Node = Everything | Is | Measure | Not | All | AnyOf


def _inside(node: Node) -> str:
    return f"({node})" if isinstance(node, (All, AnyOf)) else str(node)
