# SPDX-License-Identifier: Apache-2.0
r"""The language that picks devices: ``board:rpi5 and site in (a,b) and drift>0.2 and not tag:lab``. Pure.

Theory of operation. Text becomes tokens with their columns, tokens become a tree by recursive descent, and the tree
prints itself so that reading it again gives the same tree. Length, depth and number of conditions are bounded before
anything is evaluated: a query comes from a person, and is stored as a group.

Grammar::

    query     = both {"or" both}            ; "not" binds before "and", "and" before "or"
    both      = one {"and" one}
    one       = "not" one | "(" query ")" | condition
    condition = flag | "all"
              | fact (":" | "=" | "!=") word | fact ("<" | "<=" | ">" | ">=") number | fact "in" "(" word {"," word} ")"
    fact      = name | "model" ":" word     ; followed by an operator
    word      = letters and signs but ()<>=!:,"'\ and blanks | text in "…" or '…', with \ before a quote

Facts that are not listed in ``FIELDS`` are labels of the device.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edge_contract.errors import UsageError
from fleet.core.facts import FIELDS, facts_of
from fleet.core.query_nodes import COMPARISONS, FLAG_WORDS, All, AnyOf, Everything, Is, Measure, Node, Not

__all__ = ["MAX_CONDITIONS", "MAX_DEPTH", "MAX_LENGTH", "Query", "facts_of", "parse"]

MAX_LENGTH: Final = 2000
MAX_DEPTH: Final = 20
MAX_CONDITIONS: Final = 200

_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<op><=|>=|!=|[()<>=:,])
      | (?P<word>[^\s()<>=!:,"'\\]+)
      | (?P<wrong>\S)
    )""",
    re.VERBOSE | re.DOTALL,
)
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}\Z")
_NUMBER: Final = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)([a-z%]*)\Z")
_DAYS: Final = {"": 1.0, "d": 1.0, "h": 1 / 24, "min": 1 / 1440, "s": 1 / 86_400, "w": 7.0}
_EQUALS: Final = (":", "=", "!=")
_FIX: Final = "see docs/fleet-devices.md for the words"


@dataclass(frozen=True)
class Query:
    """One query, ready to be asked of many devices."""

    root: Node

    def __str__(self) -> str:
        return str(self.root)

    def matches(self, facts: Mapping[str, Any]) -> bool:
        """True if the facts of a device fit."""
        return self.root.matches(facts)

    @property
    def fields(self) -> frozenset[str]:
        """Names of the facts that it asks for, such as ``model:digits``."""
        return frozenset(_fields(self.root))


def _fields(node: Node) -> Iterator[str]:
    match node:
        case Not(of):
            yield from _fields(of)
        case All(of) | AnyOf(of):
            for one in of:
                yield from _fields(one)
        case Is(field) | Measure(field):
            yield field


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    column: int

    @property
    def is_word(self) -> bool:
        return self.kind in ("word", "text")

    def says(self, *words: str) -> bool:
        """True if it is one of the words of the language, or one of its signs."""
        return self.kind in ("word", "op") and self.text.lower() in words


def parse(text: str) -> Query:
    """Return the query that a text writes.

    Raises:
        UsageError: Where it cannot be read, with the column and what was expected there; or too long or too deep.

    Example:
        >>> one = parse("board:rpi5 and site in (a, b) and (drift > 0.2 or not online)")
        >>> str(one)
        'board:rpi5 and site in (a,b) and (drift>0.2 or not online:yes)'
        >>> one.matches({"board": ("rpi5",), "site": "b", "drift": ("ALARM", 0.3), "online": True})
        True
        >>> parse("board:rpi5 and and")
        Traceback (most recent call last):
        edge_contract.errors.UsageError: query: column 16: expected a condition, found 'and'; see docs/fleet-devices.md for the words
    """  # noqa: E501 - the error is one line
    if len(text) > MAX_LENGTH:
        raise UsageError(
            f"{len(text)} letters, at most {MAX_LENGTH}", where="query", fix="make a group of a part of it"
        )
    for column, letter in enumerate(text, 1):
        if not letter.isprintable() and not letter.isspace():
            raise UsageError(f"column {column}: {letter!r} cannot be printed", where="query")
    return Query(_Parser(_tokens(text)).whole())


def _tokens(text: str) -> list[_Token]:
    found = []
    for one in _TOKEN.finditer(text):
        kind = str(one.lastgroup)
        said, column = one[kind], one.start(kind) + 1
        if kind == "wrong":
            what = "a text without its closing quote" if said in "\"'" else f"{said!r} outside of quotes"
            raise UsageError(f"column {column}: {what}", where="query", fix=_FIX)
        if kind == "text":
            said = re.sub(r"\\(.)", r"\1", said[1:-1], flags=re.DOTALL)
        found.append(_Token(kind, said, column))
    return [*found, _Token("end", "", len(text) + 1)]


class _Parser:
    """Reads tokens from left to right; each method reads one rule of the grammar."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens, self._at, self._depth, self._count = tokens, 0, 0, 0

    def whole(self) -> Node:
        found = self._either()
        if self._next.kind != "end":
            raise self._expected("'and', 'or' or the end")
        return found

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _expected(self, what: str, token: _Token | None = None) -> UsageError:
        token = token or self._next
        found = "the end" if token.kind == "end" else repr(token.text[:40])
        return UsageError(f"column {token.column}: expected {what}, found {found}", where="query", fix=_FIX)

    def _either(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            what = f"column {self._next.column}: more than {MAX_DEPTH} conditions inside each other"
            raise UsageError(what, where="query", fix="make a group of a part of it")
        found = [self._both()]
        while self._next.says("or"):
            self._take()
            found.append(self._both())
        self._depth -= 1
        return found[0] if len(found) == 1 else AnyOf(tuple(found))

    def _both(self) -> Node:
        found = [self._one()]
        while self._next.says("and"):
            self._take()
            found.append(self._one())
        return found[0] if len(found) == 1 else All(tuple(found))

    def _one(self) -> Node:
        nots = 0
        while self._next.says("not"):
            self._take()
            nots += 1
        if nots > MAX_DEPTH:
            raise self._expected(f"at most {MAX_DEPTH} times 'not'")
        found = self._bracketed() if self._next.says("(") else self._condition()
        for _ in range(nots):
            found = Not(found)
        return found

    def _bracketed(self) -> Node:
        self._take()
        found = self._either()
        if not self._next.says(")"):
            raise self._expected("')'")
        self._take()
        return found

    def _condition(self) -> Node:
        token = self._next
        if token.kind != "word" or token.says("and", "or", "in", "not") or not _NAME.match(token.text):
            raise self._expected("a condition")
        self._take()
        self._count += 1
        if self._count > MAX_CONDITIONS:
            raise self._expected(f"at most {MAX_CONDITIONS} conditions", token)
        if token.says("all") and not self._has_operator():
            return Everything()
        field = self._field(token.text)
        kind = FIELDS.get(field.partition(":")[0], "label")
        if not self._has_operator():
            if kind != "flag":
                raise self._expected(f"':', '<', '>' or 'in' after '{token.text}'")
            return Is(field, ("yes",))
        return self._operator(field, kind)

    def _field(self, name: str) -> str:
        name = name.lower() if name.lower() in FIELDS else name
        colon, value, after = (self._tokens[min(self._at + i, len(self._tokens) - 1)] for i in range(3))
        if name == "model" and colon.says(":") and value.is_word and after.says("in", *_EQUALS, *COMPARISONS):
            self._at += 2
            return f"{name}:{value.text}"
        return name

    def _has_operator(self) -> bool:
        return self._next.says("in", *_EQUALS, *COMPARISONS)

    def _operator(self, field: str, kind: str) -> Node:
        op = self._take().text.lower()
        if op == "in":
            return Is(field, self._values(kind))
        if op in _EQUALS:
            found = Is(field, (self._value(kind),))
            return Not(found) if op == "!=" else found
        return Measure(field, op, self._number(field, kind))

    def _values(self, kind: str) -> tuple[str, ...]:
        if not self._next.says("("):
            raise self._expected("'(' after 'in'")
        self._take()
        found = [self._value(kind)]
        while self._next.says(","):
            self._take()
            found.append(self._value(kind))
        if not self._next.says(")"):
            raise self._expected("',' or ')'")
        self._take()
        return tuple(found)

    def _value(self, kind: str) -> str:
        token = self._next
        if not token.is_word:
            raise self._expected("a word")
        if kind == "flag" and token.text.lower() not in FLAG_WORDS:
            raise self._expected("yes or no")
        return self._take().text

    def _number(self, field: str, kind: str) -> float | str:
        token, what = self._next, "a number of days, such as 7 or 2h" if kind == "days" else "a number"
        if ":" in field or kind == "version":
            if not token.is_word or not re.match(r"v?\d", token.text):
                raise self._expected("a version, such as 1.2")
            return self._take().text
        found = _NUMBER.match(token.text) if token.is_word else None
        units = _DAYS if kind == "days" else {"": 1.0}
        if found is None or found[2] not in units or not math.isfinite(float(found[1])):
            raise self._expected(what)
        if kind in ("flag", "word"):
            raise self._expected(f"':' or 'in': '{field}' is no number", self._tokens[self._at - 1])
        self._take()
        return float(found[1]) * units[found[2]]
