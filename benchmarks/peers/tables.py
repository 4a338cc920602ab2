# SPDX-License-Identifier: Apache-2.0
"""Results as tables, for a terminal and for a page; every number comes from a results file."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.rows import ROWS

__all__ = ["Table", "accuracy_table", "flatness_table", "markdown", "noise_table", "pairs_table", "text"]

_MISSING = "–"


@dataclass(frozen=True)
class Table:
    """A title, column heads, cells as text [rows][columns], and what is said below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def text(table: Table) -> str:
    """Return a table for a terminal, as wide as it needs."""
    from rich.console import Console
    from rich.table import Table as RichTable

    drawn = RichTable(title=table.title, title_justify="left")
    for index, column in enumerate(table.columns):
        drawn.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*row)
    buffer = io.StringIO()
    Console(file=buffer, width=240).print(drawn)
    return "\n".join([*(line.rstrip() for line in buffer.getvalue().rstrip().splitlines()), *table.notes])


def markdown(table: Table) -> str:
    r"""Return a table for a page, without its title.

    Example:
        >>> print(markdown(Table("t", ("a", "b"), (("1", "2|3"),))))
        | a | b |
        |---|---|
        | 1 | 2\|3 |
    """
    lines = [table.columns, ("---",) * len(table.columns), *table.rows]
    drawn = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    drawn[1] = "|" + "---|" * len(table.columns)
    notes = "".join(f"\n- {note}" for note in table.notes)
    return "\n".join(drawn) + (f"\n{notes}" if notes else "")


def accuracy_table(net: str, entry: Mapping[str, Any]) -> Table:
    """Return the main table of a network: one line per file of each row; why a row has none is said below."""
    columns = ("row", "file", "accuracy", "drop [95 %]", "agree % [95 %]", "KL", "KiB", "speed", "float ops")
    lines, notes = [], []
    for name in _ordered(entry.get("rows", {})):
        found = entry["rows"][name]
        cost = found.get("cost", {})
        tail = (_number(cost.get("cpu_s"), 1), _number(cost.get("peak_mib"), 0))
        for kind, file in found.get("files", {}).items():
            speed = entry.get("speed", {}).get(f"{name} {kind}")
            lines.append((ROWS[name].title, kind, *_quality(file), _speed(speed), _left(file), *tail))
            tail = ('"', '"')  # one conversion wrote both files
        if error := found.get("error"):
            lines.append((ROWS[name].title, "failed", *[_MISSING] * 7, *tail))
            notes.append(f"{ROWS[name].title}: {error}")
    return Table(f"{net}{_float_sizes(entry)}", (*columns, "CPU s", "peak MiB"), tuple(lines), tuple(notes))


def _ordered(rows: Iterable[str]) -> list[str]:
    known = set(rows)
    return [name for name in ROWS if name in known]


def _quality(file: Mapping[str, Any]) -> tuple[str, ...]:
    drop, same = file["drop"], file["agreement"]
    if file["labelled"] < 100:  # a handful of labels says nothing in per cent
        accuracy, lost = f"{file['right']} of {file['labelled']} (float {file['right_float']})", _MISSING
    else:
        accuracy = f"{100 * file['right'] / file['labelled']:.2f}"
        lost = f"{drop['value']:.2f} [{drop['low']:.2f}, {drop['high']:.2f}]"
    digits = 1 if file["judged"] < 1000 else 2
    agreement = f"{same['value']:.{digits}f} [{same['low']:.{digits}f}, {same['high']:.{digits}f}]"
    return accuracy, lost, agreement, f"{file['kl']:.5f}".replace("0.", ".", 1), f"{file['bytes'] / 1024:.0f}"


def _speed(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return _MISSING
    return f"{found['ratio']:.2f} ({min(found['parts']):.2f}–{max(found['parts']):.2f})"


def _left(file: Mapping[str, Any]) -> str:
    found = {kind: count for kind, count in file["float_operators"].items() if kind != "casts"}
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items(), key=lambda item: -item[1])[:3])
    return f"{sum(found.values())} ({kinds})" if found else "0"


def _number(value: float | None, digits: int) -> str:
    return _MISSING if value is None else f"{value:.{digits}f}"


def _float_sizes(entry: Mapping[str, Any]) -> str:
    sizes = ", ".join(f"{kind} {size / 1024:.0f} KiB" for kind, size in entry.get("float_bytes", {}).items())
    return f" (float: {sizes})" if sizes else ""


def pairs_table(net: str, entry: Mapping[str, Any]) -> Table:
    """Return which pairs of files compute the same integers."""
    columns = ("pair", "output codes", "differing", "exact %", "largest difference, steps", "same class %")
    lines = [
        (
            f"{found['a']} = {found['b']}",
            str(found["codes"]),
            str(found["differing"]),
            f"{found['exact_percent']:.2f}",
            str(found["largest_steps"]),
            f"{found['same_class_percent']:.2f}",
        )
        for found in entry.get("pairs", {}).values()
    ]
    return Table(net, columns, tuple(lines))


def noise_table(nets: Mapping[str, Any]) -> Table:
    """Return the A/A rows: the float file of each network against itself."""
    columns = ("network, runtime", "float µs", "A/A", "its parts", "calls", "load before")
    lines = []
    for net, entry in nets.items():
        for name, found in entry.get("speed", {}).items():
            if name.startswith("A/A "):
                parts = ", ".join(f"{part:.3f}" for part in found["parts"])
                what = f"{net}, {name.removeprefix('A/A ')}"
                cells = (f"{found['a_us']:.0f}", f"{found['ratio']:.3f}", parts, str(found["calls"]))
                lines.append((what, *cells, f"{found['load_1min']:.1f}"))
    return Table("noise", columns, tuple(lines))


def flatness_table(nets: Mapping[str, Any]) -> Table:
    """Return what conversions cost with more and more calibration samples."""
    columns = ("network, row", "samples", "their MiB", "CPU s", "peak MiB")
    lines, notes = [], []
    for net, entry in nets.items():
        for name in _ordered(entry.get("flatness", {})):
            for found in entry["flatness"][name]:
                title, size = f"{net}, {ROWS[name].title}", f"{found['samples_mib']:.0f}"
                cost = _number(found.get("cpu_s"), 1), _number(found.get("peak_mib"), 0)
                lines.append((title, str(found["samples"]), size, *cost))
                if "error" in found:
                    notes.append(f"{title}, {found['samples']} samples: {found['error']}")
    return Table("flatness", columns, tuple(lines), tuple(notes))
