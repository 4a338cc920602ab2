# SPDX-License-Identifier: Apache-2.0
"""Ask the real ``edgetpu_compiler`` where it is installed, read its log, and compare it with the prediction.

Coral ships it for x86-64 Debian alone. It runs in a temporary folder; nothing of it is kept but its words.
"""

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from export.edgetpu.status import MAPPED

__all__ = ["PROGRAM", "Comparison", "CompilerLog", "compare", "compile_model", "parse"]

PROGRAM: Final = "edgetpu_compiler"
_TIMEOUT_S: Final = 600
_ROW: Final = re.compile(r"^([A-Za-z][\w.-]*) +(\d+) +(\S.*\S) *$")
_SIZE: Final = re.compile(r"([\d.]+) *(B|KiB|MiB|GiB)\b")
_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_FIELDS: Final = {
    "cached_bytes": "On-chip memory used for caching model parameters:",
    "room_bytes": "On-chip memory remaining for caching model parameters:",
    "streamed_bytes": "Off-chip memory used for streaming uncached model parameters:",
}
_FAILURES: Final = ("ERROR:", "Internal compiler error", "Compilation failed:", "Invalid model", "Model could not be")


@dataclass(frozen=True)
class CompilerLog:
    """What the compiler printed.

    Attributes:
        version: Such as ``16.0.384591198``; empty if it did not say.
        rows: (operator, status) → count.
        failure: Its first line of failure; empty if it compiled.
        cached_bytes, room_bytes, streamed_bytes: Parameters on the chip, room left there, parameters over the cable;
            -1 where the log does not say.
    """

    version: str
    rows: Mapping[tuple[str, str], int] = field(default_factory=dict)
    failure: str = ""
    cached_bytes: int = -1
    room_bytes: int = -1
    streamed_bytes: int = -1

    @property
    def mapped(self) -> int:
        """Operators on the Edge TPU."""
        return sum(count for (_, status), count in self.rows.items() if status == MAPPED)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        rows = [{"operator": kind, "status": status, "count": n} for (kind, status), n in sorted(self.rows.items())]
        return {
            "version": self.version,
            "rows": rows,
            "failure": self.failure,
            "cached_bytes": self.cached_bytes,
            "room_bytes": self.room_bytes,
            "streamed_bytes": self.streamed_bytes,
        }


@dataclass(frozen=True)
class Comparison:
    """Operators on which prediction and compiler agree, of all; and a line for each kind on which they do not."""

    agreeing: int
    operators: int
    differences: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"agreeing": self.agreeing, "operators": self.operators, "differences": list(self.differences)}


def parse(text: str) -> CompilerLog:
    r"""Read what the compiler prints with ``-s``, or its ``_edgetpu.log`` file.

    Example:
        >>> log = parse("Edge TPU Compiler version 16.0.1\n\nADD  10  Mapped to Edge TPU\n")
        >>> log.version, log.rows
        ('16.0.1', {('ADD', 'Mapped to Edge TPU'): 10})
    """
    rows: Counter[tuple[str, str]] = Counter()
    version = failure = ""
    sizes: dict[str, int] = {}
    for line in text.splitlines():
        row = _ROW.match(line)
        if row:
            rows[row[1], row[3]] += int(row[2])
        if line.startswith("Edge TPU Compiler version "):
            version = line.split()[-1]
        elif not failure and line.startswith(_FAILURES):
            failure = line.removeprefix("ERROR: ").strip()
        for name, words in _FIELDS.items():
            found = _SIZE.search(line.removeprefix(words)) if line.startswith(words) else None
            if found:
                sizes[name] = round(float(found[1]) * _UNITS[found[2]])
    return CompilerLog(version, dict(rows), failure, **sizes)


def compile_model(data: bytes, *, runtime: int | None = None) -> CompilerLog | None:
    """Run the compiler on a file's bytes; None where it is not installed.

    A failure of the compiler is an answer, given in ``failure``.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(data)
        words = [program, "-s", "-o", str(folder), *(["-m", str(runtime)] if runtime else []), "model.tflite"]
        try:
            done = subprocess.run(
                words, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return CompilerLog("", failure=f"no answer in {_TIMEOUT_S} s")
        except OSError as error:
            return CompilerLog("", failure=f"cannot be started ({error.strerror})")
        log = parse(f"{done.stdout}\n{done.stderr}")
    if done.returncode != 0 and not log.failure:
        return CompilerLog(log.version, log.rows, f"exit code {done.returncode}")
    return log


def compare(predicted: Mapping[tuple[str, str], int], actual: Mapping[tuple[str, str], int]) -> Comparison:
    """Compare where operators run, kind by kind: the log gives counts, not places.

    Args:
        predicted: (operator, status) → count, as ``TpuReport.histogram`` gives it.
        actual: The same of the compiler.
    """
    ours, theirs = _split(predicted), _split(actual)
    agreeing, differences = 0, []
    for kind in sorted(ours.keys() | theirs.keys()):
        mapped, total = ours.get(kind, (0, 0))
        real, real_total = theirs.get(kind, (0, 0))
        same = min(mapped, real) + min(total - mapped, real_total - real)
        agreeing += same
        if same < max(total, real_total):
            differences.append(f"{kind}: predicted {mapped} of {total} mapped, the compiler {real} of {real_total}")
    return Comparison(agreeing, sum(total for _, total in theirs.values()), tuple(differences))


def _split(rows: Mapping[tuple[str, str], int]) -> dict[str, tuple[int, int]]:
    """Return kind → (mapped, all)."""
    found: dict[str, tuple[int, int]] = {}
    for (kind, status), count in rows.items():
        mapped, total = found.get(kind, (0, 0))
        found[kind] = (mapped + (count if status == MAPPED else 0), total + count)
    return found
