# SPDX-License-Identifier: Apache-2.0
"""Bars on stderr while an image is unpacked or a card is written: bytes, speed and the time left of each stage."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet.flash.base import Heard
from fleet.flash.card import Progress

__all__ = ["shown", "stages"]


@contextmanager
def stages(*, is_shown: bool) -> Iterator[Progress]:
    """Yield what hears of (stage, bytes done, bytes of all): a bar for each stage, or nothing."""
    if not is_shown:
        yield lambda _stage, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def told(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done)

        yield told


@contextmanager
def shown(base: Path, *, is_shown: bool) -> Iterator[Heard]:
    """Yield what hears of the progress of unpacking: a bar of the published bytes read, or nothing."""
    is_file = base.is_file()
    total = base.stat().st_size if is_file else 0
    with stages(is_shown=is_shown and is_file) as told:
        yield lambda read, _written: told(f"unpacking {base.name}", read, total)
