# SPDX-License-Identifier: Apache-2.0
"""``devices.csv``: one row for each card of a batch. What ``strop fleet enrol new --out`` writes is one.

Columns: ``name`` (device and host name), and ``token`` or ``token_file`` (from the folder of the list); ``id``,
``labels``, ``expires`` and ``note`` may stand beside them, for the printed labels. The whole list is checked before the
first card is begun.
"""

import csv
import datetime as dt
import io
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_contract.enrolment import check_device_name
from edge_contract.errors import EnrolmentError, UsageError
from fleet.flash.customisation import Customisation

__all__ = ["COLUMNS", "Row", "read"]

COLUMNS: Final = ("name", "token", "token_file", "id", "labels", "expires", "note")
MOST_ROWS: Final = 10_000


@dataclass(frozen=True)
class Row:
    """One device.

    Attributes:
        name: Of the device, and its host name.
        token: Its one-time token; empty where the site has no server. Never shown.
        token_id, labels, note: For the printed label.
    """

    name: str
    token: str = ""
    token_id: str = ""
    labels: str = ""
    note: str = ""

    def __repr__(self) -> str:
        return f"Row({self.name!r})"  # a token in a traceback would be one in a log


def read(path: Path, *, now: dt.datetime) -> tuple[Row, ...]:
    """Return the rows of a list.

    Args:
        path: A CSV file in UTF-8, its first line the names of the columns.
        now: Tokens that are over by then are refused; aware of its zone.

    Raises:
        UsageError: No such file, unknown columns, a name twice or one that no host may have, a token twice or over, or
            tokens in a file that everybody can read.
    """
    try:
        text = path.read_text("utf-8-sig")
        mode = stat.S_IMODE(path.stat().st_mode)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from error
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise UsageError(f"line {reader.line_num}: {error}", where=str(path)) from error
    _check_columns(reader.fieldnames or [], path)
    if not 0 < len(rows) <= MOST_ROWS:
        raise UsageError(f"{len(rows)} devices", where=str(path), fix=f"list 1 to {MOST_ROWS}")
    if "token" in (reader.fieldnames or []) and mode & 0o077:
        raise UsageError(
            "holds tokens, and others than its owner can read it", where=str(path), fix=f"chmod 600 {path}"
        )
    found = tuple(_row(row, line, path, now) for line, row in enumerate(rows, 2))
    _check_apart("name", ((row.name.lower(), line) for line, row in enumerate(found, 2)), path)
    _check_apart("token", ((row.token, line) for line, row in enumerate(found, 2) if row.token), path)
    return found


def _check_columns(names: Iterable[str | None], path: Path) -> None:
    known = [str(name) for name in names]
    strangers = [name for name in known if name not in COLUMNS]
    if strangers or "name" not in known or len(set(known)) != len(known):
        what = f"unknown column '{strangers[0]}'" if strangers else "no column 'name', or one twice"
        raise UsageError(what, where=f"{path} line 1", fix=f"use {', '.join(COLUMNS)}")


def _row(row: Mapping[str | None, str | list[str] | None], line: int, path: Path, now: dt.datetime) -> Row:
    where = f"{path} line {line}"
    if None in row or None in row.values():
        raise UsageError("more or fewer cells than columns", where=where)
    cells = {str(key): str(value).strip() for key, value in row.items()}
    try:
        check_device_name(cells["name"])
        Customisation(cells["name"])  # which no host may be called otherwise
    except (EnrolmentError, UsageError) as error:
        raise UsageError(error.what, where=where, fix=error.fix) from error
    _check_expiry(cells.get("expires", ""), now, where)
    return Row(cells["name"], _token(cells, path, where), *(cells.get(key, "") for key in ("id", "labels", "note")))


def _check_expiry(text: str, now: dt.datetime, where: str) -> None:
    if not text:
        return
    try:
        ends = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"expires = {text[:40]!r} is no time", where=where, fix="write 2027-01-31 12:00:00") from error
    if (ends if ends.tzinfo else ends.replace(tzinfo=dt.UTC)) <= now:
        raise UsageError(
            f"the token ended at {text}", where=where, fix="strop fleet enrol new --out FILE makes new ones"
        )


def _token(cells: Mapping[str, str], path: Path, where: str) -> str:
    named = cells.get("token_file", "")
    if not named:
        return cells.get("token", "")
    if cells.get("token"):
        raise UsageError("a token and a token_file", where=where, fix="give one of them")
    try:
        return (path.parent / named).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"token_file '{named}' cannot be read: {error}", where=where) from error


def _check_apart(what: str, values: Iterable[tuple[str, int]], path: Path) -> None:
    seen: dict[str, int] = {}
    for value, line in values:
        if value in seen:
            shown = f" '{value}'" if what == "name" else ""
            fix = "a token is for one device" if what == "token" else "give each its own; case does not count"
            raise UsageError(f"{what}{shown} is already in line {seen[value]}", where=f"{path} line {line}", fix=fix)
        seen[value] = line
