# SPDX-License-Identifier: Apache-2.0
"""A report on disk: ``report.json`` for machines and ``report.html`` for people."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Final

from compress.report import CompressionReport
from compress.report_page import comparison_page, page
from edge_contract.errors import DataError

__all__ = ["NAME", "read", "write", "write_comparison"]

NAME: Final = "report.json"


def write(report: CompressionReport, folder: Path) -> None:
    """Write ``report.json`` and ``report.html`` into a folder; each is there whole, or as it was.

    Raises:
        DataError: The disk is full or the folder cannot be written.
    """
    _put(folder / "report.html", page(report))
    _put(folder / NAME, json.dumps(report.to_json(), indent=2, sort_keys=True) + "\n")


def _put(file: Path, text: str) -> None:
    part = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        fix = "free some space, or name another place"
        raise DataError(f"cannot be written: {error.strerror}", where=str(file), fix=fix) from error


def write_comparison(first: Path, second: Path, file: Path) -> None:
    """Write a page with the reports of two folders side by side.

    Raises:
        DataError: A report is missing or damaged, both were measured on different data, or the page cannot be written.
    """
    text = comparison_page(read(first), read(second), (str(first), str(second)))
    _put(file, text)


def read(path: Path) -> CompressionReport:
    """Return the report in a folder or file.

    Raises:
        DataError: None there, not JSON, or damaged.
    """
    file = path / NAME if path.is_dir() else path
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError("no report", where=str(file), fix="run strop compress run RECIPE --out FOLDER") from error
    except (OSError, ValueError) as error:
        raise DataError("not JSON", where=str(file), fix="run the recipe again") from error
    if not isinstance(document, dict):
        raise DataError("not a report", where=str(file), fix="run the recipe again")
    return CompressionReport.from_json(document, where=str(file))
