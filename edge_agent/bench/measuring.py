# SPDX-License-Identifier: Apache-2.0
"""Run one measurement within its limits, and gather what it left. Standard library."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge_agent.adapters.download import file_digest
from edge_agent.adapters.guard import own_bytes
from edge_agent.bench.child import Child, last_words, library
from edge_contract.bench_job import MAX_FILE_BYTES, MAX_FILES, MAX_RESULT_BYTES, RESULT, BenchJob
from edge_contract.errors import StropError
from edge_contract.topics import is_name

__all__ = ["Measured", "collected", "measure"]

LOOK_S: Final = 0.5
SIZE_EVERY: Final = 10
"""The scratch folder is counted with each tenth look: counting reads directories, which the measurement could feel."""


@dataclass(frozen=True)
class Measured:
    """How a measurement ended: with a result, or why not; and what was seen of it."""

    ok: bool
    why: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def measure(  # noqa: PLR0917 - one measurement
    data: Path,
    folder: Path,
    command: list[str],
    job: BenchJob,
    why: Callable[[], str],
    wait: Callable[[float], object],
) -> Measured:
    """Run a command as a process group until it ends, and end what is left of it.

    Args:
        data: The device's data folder.
        folder: The order's scratch folder.
        command: What measures.
        job: The order, with its limits.
        why: Says why the measurement has to end, empty while it may go on.
        wait: Sleeps so many seconds, or less.
    """
    try:
        child = Child(command, folder, library(data), seconds=job.max_seconds, most=job.max_bytes)
    except StropError as error:
        return Measured(False, str(error))
    found = _watched(child, folder, job, why, wait)
    seconds, code = child.seconds, child.end()
    facts = {"seconds": round(seconds, 1), "bytes": own_bytes(folder)}
    if found:
        return Measured(False, found, facts)
    if code or not (folder / "out" / RESULT).is_file():
        said = last_words(folder) or f"it ended with code {code} and left no result"
        late = seconds >= job.max_seconds
        return Measured(False, f"it took longer than {job.max_seconds:g} s" if late else said, facts)
    return Measured(True, "", facts)


def _watched(child: Child, folder: Path, job: BenchJob, why: Callable[[], str], wait: Callable[[float], object]) -> str:
    """Return why the measurement had to end, empty if it ended by itself."""
    looks = 0
    while not child.is_over():
        looks += 1
        if found := why():
            return found
        if looks % SIZE_EVERY == 0 and (size := own_bytes(folder)) > job.max_bytes:
            return f"it took {size} bytes of the disk, more than {job.max_bytes}"
        if child.seconds > job.max_seconds + 10:
            return f"it took longer than {job.max_seconds:g} s"
        wait(LOOK_S)
    return ""


def collected(out: Path) -> tuple[dict[str, str], str]:
    """Return name → SHA-256 of what may be sent, and what is left out in words.

    The result itself comes first; raw samples that are too large stay here and go with the scratch folder.
    """
    found, left = dict[str, str](), list[str]()
    paths = sorted((path for path in out.iterdir() if path.is_file()), key=lambda path: path.name != RESULT)
    for path in paths:
        size, most = path.stat().st_size, MAX_RESULT_BYTES if path.name == RESULT else MAX_FILE_BYTES
        if size > most or not is_name(path.name) or len(found) >= MAX_FILES or path.is_symlink():
            left.append(f"{path.name[:63]} ({size} bytes)")
        else:
            found[path.name] = file_digest(path)
    if RESULT not in found:
        return {}, f"the result is too large: {', '.join(left)}"
    return found, f"left out: {', '.join(left)}" if left else ""
