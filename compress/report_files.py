# SPDX-License-Identifier: Apache-2.0
"""A report on disk: ``report.json`` for machines and ``report.html`` for people."""

import json
from pathlib import Path
from typing import Final

from compress.report import CompressionReport
from compress.report_page import comparison_page, page
from edge_contract.errors import DataError

__all__ = ["NAME", "read", "write", "write_comparison"]

NAME: Final = "report.json"


def write(report: CompressionReport, folder: Path) -> None:
    """Write ``report.json`` and ``report.html`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(page(report), encoding="utf-8")
    (folder / NAME).write_text(json.dumps(report.to_json(), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_comparison(first: Path, second: Path, file: Path) -> None:
    """Write a page with the reports of two folders side by side.

    Raises:
        DataError: A report is missing or damaged, or the two were measured on different data.
    """
    text = comparison_page(read(first), read(second), (str(first), str(second)))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


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
