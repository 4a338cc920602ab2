# SPDX-License-Identifier: Apache-2.0
"""Drift windows as a table in a file: CSV with the standard library, Parquet with pyarrow."""

import csv
import importlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import UsageError

__all__ = ["FORMATS", "write_rows"]

FORMATS: Final = ("csv", "parquet")
_BATCH: Final = 2000


def write_rows(rows: Iterable[dict[str, Any]], out: Path, form: str = "") -> tuple[int, str]:
    """Write rows and return (how many, the format).

    Args:
        rows: All with the columns of the first one; later ones may have more, which are left out.
        out: The file; it appears whole or not at all.
        form: One of ``FORMATS``; empty takes the file's ending.

    Raises:
        UsageError: Another format, pyarrow is missing, or the file cannot be written.
    """
    kind = form or out.suffix.removeprefix(".") or "csv"
    if kind not in FORMATS:
        raise UsageError(f"unknown format {kind!r}", where=str(out), fix=f"use --format {' or '.join(FORMATS)}")
    write = _parquet if kind == "parquet" else _csv
    part = out.with_name(out.name + ".part")
    try:
        count = write(iter(rows), part)
        part.replace(out)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=str(out)) from error
    finally:
        part.unlink(missing_ok=True)
    return count, kind


def _csv(rows: Iterator[dict[str, Any]], out: Path) -> int:
    first, count = next(rows, None), 0
    with out.open("w", newline="", encoding="utf-8") as file:
        if first is None:
            return 0
        writer = csv.DictWriter(file, fieldnames=list(first), extrasaction="ignore", restval="")
        writer.writeheader()
        for row in itertools.chain([first], rows):
            writer.writerow({key: _cell(value) for key, value in row.items()})
            count += 1
    return count


def _cell(value: Any) -> Any:
    """A list becomes numbers with spaces; a text that a spreadsheet would run is made harmless."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, str) and value[:1] in "=+-@\t\r" and value[:1]:
        return "'" + value
    return value


def _parquet(rows: Iterator[dict[str, Any]], out: Path) -> int:
    try:
        pa, pq = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    except ImportError as error:
        fix = "pip install 'strop[parquet]', or use --format csv"
        raise UsageError("Parquet is written by pyarrow, which is not installed", where=str(out), fix=fix) from error
    count, writer = 0, None
    try:
        while some := list(itertools.islice(rows, _BATCH)):
            batch = pa.Table.from_pylist(some) if writer is None else pa.Table.from_pylist(some, schema=writer.schema)
            writer = writer or pq.ParquetWriter(out, _typed(pa, batch.schema))
            writer.write_table(batch.cast(writer.schema))
            count += len(some)
        if writer is None:
            pq.write_table(pa.table({}), out)
    finally:
        if writer is not None:
            writer.close()
    return count


def _typed(pa: Any, schema: Any) -> Any:
    """Columns that were empty in the first rows are numbers: only figures may be missing."""
    fields = [pa.field(one.name, pa.float64()) if pa.types.is_null(one.type) else one for one in schema]
    return pa.schema(fields)
