# SPDX-License-Identifier: Apache-2.0
"""What was measured on which machine: one file for each kind of machine in ``benchmarks/results/own``.

The key is the processor, its cores that we may use, the architecture and the Python: figures of two keys are never
compared. Kernel and day stand in the file.
"""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import Machine, describe
from edge_contract.errors import MeasurementError
from edge_contract.fields import Fields

__all__ = ["FOLDER", "SCHEMA", "Own", "key_of", "load", "now", "others", "save"]

FOLDER: Final = Path(__file__).resolve().parents[1] / "results" / "own"
SCHEMA: Final = "strop.own/1"
Launches = list[list[float]]


@dataclass(frozen=True)
class Own:
    """One measurement of the project's own speed.

    Attributes:
        key: Of the machine.
        machine: In words.
        date: UTC.
        commit: Of the source; ``+`` behind it: with changes.
        launches: Figure → values of each launch.
        noise: Figure → how far two measurements of the same source came apart, as a share.
        missing: Subject → why it could not be measured.
    """

    key: str
    machine: str
    date: str
    commit: str
    launches: Mapping[str, Launches]
    noise: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return {"schema": SCHEMA, **asdict(self)}


def key_of(machine: Machine) -> str:
    """Return the name of a machine's file.

    Example:
        >>> key_of(Machine("Raspberry Pi 5 Model B Rev 1.0", 4, "Linux 6.6.31 aarch64", "3.11.2", "ondemand", 0.1))
        'raspberry-pi-5-model-b-rev-1-0-4-cores-aarch64-py3-11'
    """
    python = ".".join(machine.python.split(".")[:2])
    words = f"{machine.processor} {machine.cores} cores {machine.system.split()[-1]} py{python}"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def now(
    launches: Mapping[str, Launches],
    *,
    noise: Mapping[str, float] | None = None,
    missing: Mapping[str, str] | None = None,
) -> Own:
    """Return a measurement of this machine, this source, today."""
    machine, today = describe(), datetime.now(UTC).isoformat(timespec="seconds")
    return Own(key_of(machine), str(machine), today, _commit(), launches, noise or {}, missing or {})


def save(found: Own, folder: Path = FOLDER) -> Path:
    """Write a measurement over the one of the same machine; return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{found.key}.json"
    path.write_text(json.dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def load(key: str, folder: Path = FOLDER) -> Own | None:
    """Return what is kept of a machine, None if nothing is.

    Raises:
        MeasurementError: The file is not what ``save`` writes.
    """
    path = folder / f"{key}.json"
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MeasurementError(f"no JSON: {error}", where=str(path)) from error
    fields = Fields(document, str(path), MeasurementError)
    fields.text("schema", among=(SCHEMA,))
    words = {name: fields.text(name) for name in ("key", "machine", "date", "commit")}
    launches = document.get("launches")
    if not isinstance(launches, dict) or not all(_is_launches(one) for one in launches.values()):
        raise MeasurementError("field 'launches' holds no lists of numbers", where=str(path))
    return Own(**words, launches=launches, noise=document.get("noise", {}), missing=document.get("missing", {}))


def others(key: str, folder: Path = FOLDER) -> list[str]:
    """Return the machines of which something is kept, but for this one."""
    return sorted(path.stem for path in folder.glob("*.json") if path.stem != key)


def _is_launches(found: Any) -> bool:
    def is_launch(one: Any) -> bool:
        return isinstance(one, Sequence) and bool(one) and all(isinstance(value, int | float) for value in one)

    return isinstance(found, list) and bool(found) and all(is_launch(one) for one in found)


def _commit() -> str:
    """Return the source's commit, empty outside of a repository."""
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False, cwd=root)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return f"{head}+" if head and git("status", "--porcelain", "--untracked-files=no") else head
    except OSError:
        return ""
