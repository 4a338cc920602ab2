# SPDX-License-Identifier: Apache-2.0
"""The stopwatch of boards: what ``compress`` is handed to measure latency on devices of a fleet.

``strop compress search RECIPE --measure-on QUERY`` names it ``strop.boards:slowest`` and lets ``prepare`` write what it
has to know into the search's folder (``boards.json``), to which the variable ``STROP_BOARDS`` points: each trial is a
process of its own.
A model is written for ONNX Runtime and LiteRT, uploaded, and measured by the fleet's benchmark on every device that
fits the query. The slowest median counts, so that a budget holds on each of them. What was measured is kept in
``boards.jsonl`` by the bytes of the files: a search that goes on measures nothing twice.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_contract.errors import MeasurementError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from benchmarks.fleet.remote import Part
    from compress.quantize.plan import QuantizationPlan

__all__ = ["KEPT", "SETTINGS", "VARIABLE", "Boards", "Settings", "prepare", "slowest"]

VARIABLE: Final = "STROP_BOARDS"
SETTINGS: Final = "boards.json"
KEPT: Final = "boards.jsonl"
_PASSING: Final = ("expired", "cancelled")
_PLAN: Final = {"profile": "quick", "launches": 3, "runs": 50, "seconds": 1.0, "cooldown_s": 10.0}
"""A trial decides among models that differ by tens of percent; ``strop bench run`` measures the one that wins."""


@dataclass(frozen=True)
class Settings:
    """What a trial has to know to measure on boards.

    Attributes:
        query: Which devices.
        folder: The search's folder.
        server, token_file, data: The fleet's server, as other commands name it.
        plan: Fields of ``BenchPlan`` in place of the quick ones.
        hours: A device that has not begun after so many hours has not answered.
    """

    query: str
    folder: Path
    server: str = ""
    token_file: Path | None = None
    data: Path | None = None
    plan: Mapping[str, Any] | None = None
    hours: float = 1.0

    def write(self) -> Path:
        """Write the settings into the folder for the trials' processes; return the file. No secret stands in it."""
        document = {name: str(value) if isinstance(value, Path) else value for name, value in vars(self).items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / SETTINGS
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls) -> "Settings":
        """Return the settings that ``STROP_BOARDS`` points to.

        Raises:
            UsageError: It points to none.
        """
        path = os.environ.get(VARIABLE, "")
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            fix = "start it with: strop compress search RECIPE --measure-on QUERY"
            raise UsageError(f"no settings of boards in '{path}'", where=VARIABLE, fix=fix) from error
        paths = {name: Path(found[name]) for name in ("folder", "token_file", "data") if found.get(name)}
        return cls(**{**found, "token_file": None, "data": None, **paths})


class Boards:
    """A stopwatch whose clock is the fleet's boards.

    Attributes:
        measured: What each board gave at the last call: device, board, median and interval in ms, status.
    """

    def __init__(self) -> None:
        self.measured: tuple[Mapping[str, Any], ...] = ()

    def __call__(self, model: "nn.Module", example: "Tensor", plan: "QuantizationPlan | None" = None) -> float:
        """Return the latency of one input on the slowest board, milliseconds.

        Args:
            model: The float model, written in float32 if there is no plan.
            example: One input, float32 [1, C, H, W].
            plan: The int8 model.

        Raises:
            MeasurementError: A board gave no result; it is named.
            UsageError: No device fits, or nobody said which.
            UnsupportedOperatorError: A layer that the writers do not know.
        """
        from strop.stopwatch import written

        settings = Settings.read()
        with tempfile.TemporaryDirectory(prefix="strop-") as folder:
            files = written(model, example, plan, Path(folder))
            key = _key(settings, files)
            found = _kept(settings.folder / KEPT, key)
            if found is None:
                found = _measured(settings, files)
                _keep(settings.folder / KEPT, key, found)
        self.measured = tuple(found)
        return max(float(one["median_ms"]) for one in found)


def _key(settings: Settings, files: list[Path]) -> str:
    """Name a measurement by the query, the plan and the files' bytes."""
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    words = json.dumps([settings.query, dict(settings.plan or _PLAN), digests], sort_keys=True)
    return hashlib.sha256(words.encode()).hexdigest()


def _kept(path: Path, key: str) -> list[Mapping[str, Any]] | None:
    if not path.exists():
        return None
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # a power cut in the middle of a line
            continue
        if entry.get("key") == key:
            return list(entry["boards"])
    return None


def _keep(path: Path, key: str, boards: list[Mapping[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:  # one write: trials at once append whole lines
        file.write(json.dumps({"key": key, "boards": [dict(one) for one in boards]}) + "\n")


def _measured(settings: Settings, files: list[Path]) -> list[Mapping[str, Any]]:
    """Measure on every board; one that never answered is asked once more."""
    from benchmarks.fleet.remote import Asked, ask, client_for, uploaded

    client = client_for(settings.data, settings.server, settings.token_file)
    model = {"files": [uploaded(client, file) for file in files]}
    asked = Asked(settings.query, model, settings.plan or _PLAN, settings.hours, max_seconds=900.0)
    _, parts = ask(client, asked)
    found = {part.device: part for part in parts}
    if late := sorted(part.device for part in parts if part.state in _PASSING or "while it measured" in part.why):
        names = ",".join(late)
        _, again = ask(client, Asked(f"device in ({names})", model, asked.plan, asked.hours, asked.max_seconds))
        found.update({part.device: part for part in again})
    return [_board(part) for part in found.values()]


def _board(part: "Part") -> Mapping[str, Any]:
    summary = part.summary
    if part.state != "done" or "p50_ms" not in summary:
        what = f"{part.device} measured nothing: {part.state}: {part.why or 'no median in its result'}"
        raise MeasurementError(what, where="--measure-on", fix="leave the device out of the query, or mend it")
    low, high = summary.get("p50_ci95_ms", (None, None))
    return {
        "device": part.device,
        "board": summary.get("board", ""),
        "median_ms": summary["p50_ms"],
        "low_ms": low,
        "high_ms": high,
        "status": summary.get("status", ""),
        "runtime": summary.get("runtime", ""),
        "artefact": summary.get("artefact", ""),
    }


def prepare(words: Mapping[str, Any], folder: Path) -> str:
    """Make a search's trials measure on boards; return the stopwatch's name.

    Args:
        words: ``query``, ``server``, ``token_file`` and ``data`` of the command line.
        folder: The search's folder.

    Raises:
        UsageError: No server is named, no device fits, or the folder's earlier trials were measured elsewhere.
        StropError: The server does not answer.
    """
    import urllib.parse

    from benchmarks.fleet.remote import client_for

    settings = Settings(folder=folder.resolve(), **words)
    client = client_for(settings.data, settings.server, settings.token_file)
    found = client.call("GET", f"/devices?limit=1&q={urllib.parse.quote(settings.query)}")
    if not found:
        raise UsageError("no device fits", where=f"--measure-on {settings.query!r}", fix="strop fleet device list")
    path = folder / SETTINGS
    if path.exists() and (before := json.loads(path.read_text(encoding="utf-8")).get("query")) != settings.query:
        what = f"its trials were measured on {before!r}"
        raise UsageError(what, where=str(folder), fix="name another folder, or give --overwrite to start again")
    os.environ[VARIABLE] = str(settings.write())
    return f"{__name__}:slowest"


slowest = Boards()
"""``module:callable`` for ``compress``: the slowest board's median."""
