# SPDX-License-Identifier: Apache-2.0
"""The noise floor of a board: how far from 1 a comparison of an artefact with itself comes, by ``strop bench aa``.

One JSON file for each board in a folder, one entry for each configuration. A comparison asks for its own
configuration first; of another one it takes the largest floor that the board has shown.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from edge_contract import durable
from edge_contract.errors import MeasurementError
from edge_contract.fields import Fields

__all__ = ["NoiseFloor", "floor_of", "floors_of", "save_floor"]

SCHEMA: Final = "strop.noise-floor/1"


@dataclass(frozen=True)
class NoiseFloor:
    """What an A/A comparison found.

    Attributes:
        board: Key of the board.
        artefact: SHA-256 of the artefact; together with ``configuration`` the entry's key.
        configuration: Runtime, threads, scenario, mode.
        floor: Ten launches against ten of the same artefact give a ratio within this of 1 in 95 of 100 comparisons.
        ratio, low, high: Of the two sides, taken in turns; 1 ought to lie in the interval.
        launches: On both sides together.
        date: UTC.
        machine: In words.
    """

    board: str
    artefact: str
    configuration: str
    floor: float
    ratio: float
    low: float
    high: float
    launches: int
    date: str
    machine: str = ""

    @classmethod
    def from_json(cls, document: Any, where: str) -> "NoiseFloor":
        """Read one entry; raises MeasurementError with the field that is wrong."""
        f = Fields(document, where, MeasurementError)
        return cls(
            f.text("board"),
            f.text("artefact"),
            f.text("configuration"),
            f.number("floor"),
            f.number("ratio"),
            f.number("low"),
            f.number("high"),
            f.integer("launches", minimum=2),
            f.text("date"),
            f.text("machine", ""),
        )


def floors_of(board_key: str, folder: Path) -> tuple[NoiseFloor, ...]:
    """Return what is stored of a board, the newest last; empty where there is nothing.

    Raises:
        MeasurementError: The file cannot be read, or is not what ``save_floor`` writes.
    """
    path = _path(board_key, folder)
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise MeasurementError(
            f"cannot be read ({error})", where=str(path), fix="remove it, and run strop bench aa"
        ) from error
    fields = Fields(document, path.name, MeasurementError)
    fields.text("schema", among=(SCHEMA,))
    return tuple(NoiseFloor.from_json(one, f"{path.name}.floors[{i}]") for i, one in enumerate(fields.items("floors")))


def floor_of(board_key: str, folder: Path, *, artefact: str = "", configuration: str = "") -> float | None:
    """Return the noise floor for a comparison on a board; None: nobody has run ``strop bench aa`` there.

    The entry of this artefact and configuration, else the largest of this configuration, else the largest of all.

    Raises:
        MeasurementError: The board's file cannot be read.
    """
    found = floors_of(board_key, folder)
    alike = [one for one in found if one.configuration == configuration]
    same = [one for one in alike if one.artefact == artefact]
    return max((one.floor for one in same or alike or found), default=None)


def save_floor(found: NoiseFloor, folder: Path) -> Path:
    """Write a floor into its board's file, in place of the one of the same artefact and configuration.

    Raises:
        MeasurementError: The folder cannot be written, or the board's file cannot be read.
    """
    key = found.artefact, found.configuration
    kept = [one for one in floors_of(found.board, folder) if (one.artefact, one.configuration) != key]
    document = {"schema": SCHEMA, "board": found.board, "floors": [asdict(one) for one in (*kept, found)]}
    path = _path(found.board, folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write(path, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise MeasurementError(f"cannot be written ({error.strerror})", where=str(path)) from error
    return path


def _path(board_key: str, folder: Path) -> Path:
    if not board_key or Path(board_key).name != board_key:
        raise MeasurementError(f"{board_key!r} is no board key", where="noise floor")
    return folder / f"{board_key}.noise.json"
