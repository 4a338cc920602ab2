# SPDX-License-Identifier: Apache-2.0
"""Gather answers into events of up to fifty rows or one second."""

from collections.abc import Callable
from typing import Any, Final

__all__ = ["MAX_ROWS", "MAX_WAIT_S", "Results"]

MAX_ROWS: Final = 50
MAX_WAIT_S: Final = 1.0


class Results:
    """Numbers answers since the process began, without a gap, and emits them in batches of one bundle.

    Example:
        >>> said = []
        >>> results = Results(said.append)
        >>> results.add("ab", "camera:7", 3, 0.91666, now=10.0)
        >>> results.flush()
        >>> said
        [{'event': 'results', 'bundle': 'ab', 'first': 0, 'rows': [['camera:7', 3, 0.9167]]}]
    """

    def __init__(self, emit: Callable[[dict[str, Any]], None]) -> None:
        self._emit = emit
        self._rows: list[list[Any]] = []
        self._bundle, self._first, self._since = "", 0, 0.0
        self._is_kept = True

    def add(self, bundle: str, ref: str, cls: int, confidence: float, *, now: float) -> None:
        """Take one answer of a bundle; ``ref`` says which input it answers."""
        if not self._is_kept:
            return
        if bundle != self._bundle:
            self.flush()
            self._bundle = bundle
        if not self._rows:
            self._since = now
        self._rows.append([ref, cls, round(confidence, 4)])

    def stop(self) -> None:
        """Keep no rows from now on: nobody reads them."""
        self._is_kept, self._rows = False, []

    @property
    def due(self) -> float | None:
        """When the rows must go: now when they are many, a second after the first; None without rows."""
        if not self._rows:
            return None
        return self._since if len(self._rows) >= MAX_ROWS else self._since + MAX_WAIT_S

    def flush(self) -> None:
        """Emit the rows that wait."""
        rows, self._rows = self._rows, []
        for at in range(0, len(rows), MAX_ROWS):  # an application's answers may have waited for a second
            some = rows[at : at + MAX_ROWS]
            event = {"event": "results", "bundle": self._bundle, "first": self._first, "rows": some}
            self._first += len(some)
            self._emit(event)
