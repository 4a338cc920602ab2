# SPDX-License-Identifier: Apache-2.0
"""Set the governor of the cores for the length of a measurement, and put back what was there. Standard library only."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["governed"]


@contextmanager
def governed(wanted: str, root: Path = Path("/")) -> Iterator[str]:
    """Set a governor within the block.

    Args:
        wanted: Such as ``performance``; empty leaves everything as it is.
        root: Where ``/sys`` is.

    Yields:
        Why it could not be set, or nothing.
    """
    files = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))
    before = {path: path.read_text().strip() for path in files}
    changed: list[Path] = []
    try:
        yield _set(wanted, before, changed) if wanted else ""
    finally:
        for path in changed:
            with suppress(OSError):  # a core may have been taken off meanwhile
                path.write_text(before[path])


def _set(wanted: str, before: dict[Path, str], changed: list[Path]) -> str:
    if not before:
        return f"the governor could not be set to {wanted}: this system has no cpufreq"
    for path, there in before.items():
        if there == wanted:
            continue
        try:
            path.write_text(wanted)
        except OSError as error:
            return f"the governor could not be set to {wanted} ({error.strerror}): it is {there}"
        changed.append(path)
    return ""
