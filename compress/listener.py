# SPDX-License-Identifier: Apache-2.0
"""Who is told how a run goes on: nobody, or a person before a terminal."""

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from compress.report import StepReport
from compress.trainer import EpochLog

__all__ = ["Listener", "Silent", "Terminal"]


class Listener(Protocol):
    """Hears about each step and epoch."""

    def begins(self, number: int, kind: str, epochs: int) -> None:
        """A step begins; its training has this many epochs."""

    def epoch(self, log: EpochLog) -> None:
        """An epoch is done."""

    def ends(self, done: StepReport, *, resumed: bool) -> None:
        """A step was measured, or was found finished by an earlier run."""


class Silent:
    """Says nothing."""

    def begins(self, number: int, kind: str, epochs: int) -> None:
        pass

    def epoch(self, log: EpochLog) -> None:
        pass

    def ends(self, done: StepReport, *, resumed: bool) -> None:
        pass


class Terminal:
    """Shows a bar for the epochs of the present step and a line for each finished one; a context manager."""

    def __init__(self, console: Console) -> None:
        columns = [TextColumn("  {task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn()]
        self._console = console
        self._progress = Progress(*columns, console=console, transient=True)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._console.is_interactive:  # in a file or a pipe it would leave empty lines
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_interactive:
            self._progress.stop()

    def _clear(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = None

    def begins(self, number: int, kind: str, epochs: int) -> None:
        self._clear()
        self._task = self._progress.add_task(f"step {number}: {kind}", total=epochs or None)

    def epoch(self, log: EpochLog) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=log.epoch, total=log.epochs)

    def ends(self, done: StepReport, *, resumed: bool) -> None:
        self._clear()
        name = f"{done.number}. {done.kind} ({done.method})" if done.number else "   as it enters"
        time = "kept" if resumed else f"{done.seconds:.1f} s"
        size = f"{done.size_kb:.1f} KB, {done.cost.macs / 1e3:.0f} kMACs"
        self._console.print(f"  {name}: {done.score}, {size}, {time}", highlight=False)
