# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.result.page``: write the tables of docs/edgebench.md from the schema's own words."""

import typing
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.result import schema

__all__ = ["BEGIN", "END", "PAGE", "main", "tables", "with_tables"]

PAGE: Final = Path(__file__).parents[2] / "docs/edgebench.md"
BEGIN, END = "<!-- written by python -m benchmarks.result.page -->\n", "<!-- end -->\n"
_PLAIN: Final = {str: "text", int: "integer", float: "number", bool: "true or false"}


def tables() -> str:
    """Return a table for the result and one for each of its sections, in the order in which they are met."""
    parts, waiting, seen = [], [schema.Result], set[type]()
    while waiting:
        kind = waiting.pop(0)
        if kind in seen:
            continue
        seen.add(kind)
        parts.append(_table(kind))
        waiting += [one for hint in typing.get_type_hints(kind).values() for one in _sections(hint)]
    return "\n".join(parts)


def _table(kind: Any) -> str:
    title = "The result" if kind is schema.Result else f"`{kind.__name__}`"
    hints, plain = typing.get_type_hints(kind, include_extras=True), typing.get_type_hints(kind)
    rows = [
        f"| `{one.name}` | {_word(plain[one.name])} | {typing.get_args(hints[one.name])[1]} |"
        for one in fields(kind)
        if one.name != "more"
    ]
    lines = [f"### {title}", "", kind.__doc__ or "", "", "| key | holds | means |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _sections(hint: Any) -> list[Any]:
    """Return the dataclasses that a field holds, however deep."""
    if is_dataclass(hint) and isinstance(hint, type):
        return [hint]
    return [one for inside in typing.get_args(hint) for one in _sections(inside)]


def _word(hint: Any) -> str:
    """Return a type in words.

    Example:
        >>> _word(tuple[float, float] | None), _word(dict[str, int])
        ('2 × number, or absent', 'object of integer')
    """
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if type(None) in inside:
        return f"{_word(next(one for one in inside if one is not type(None)))}, or absent"
    if origin is tuple:
        word = _word(inside[0])
        return f"list of {word}" if inside[-1] is Ellipsis else f"{len(inside)} × {word}"
    if origin is not None:
        return "object" if inside[1] is Any else f"object of {_word(inside[1])}"
    return f"`{hint.__name__}`" if isinstance(hint, type) else "anything"


def with_tables(text: str) -> str:
    """Return a page with its generated part as it must be today."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def main() -> None:
    """Rewrite the generated part of the page."""
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
    print(f"{PAGE.name}: written")


if __name__ == "__main__":
    main()
