# SPDX-License-Identifier: Apache-2.0
"""What the first boot has done, on the root file system: each step is written down after it, durably.

A step that was cut off is done again from its beginning, so every step may be done twice. Another plan, or another
board (a card that was copied while it was set up), begins the book anew.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge_contract import durable
from edge_contract.renewal import BoardIdentity

__all__ = ["Journal"]

SCHEMA: Final = "strop.first-boot-journal/1"


class Journal:
    """The book of one board's first boot, and beside it ``status.json`` for people and programs.

    Args:
        folder: Where both lie; it is made.
        plan: Digest of the plan that is carried out.
        board: This board.
        clock: Seconds since 1970.
    """

    def __init__(self, folder: Path, plan: str, board: BoardIdentity, clock: Callable[[], float] = time.time) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._status, self._clock = folder / "journal.json", folder / "status.json", clock
        for path in (self._path, self._status):
            durable.sweep(path)
        self._board = board
        self._whose = {"schema": SCHEMA, "plan": plan}
        found = self._read()
        self.was_copied = bool(found) and not _board(found).is_same_board(board)
        is_ours = not self.was_copied and {key: found.get(key) for key in self._whose} == self._whose
        self._done: dict[str, dict[str, Any]] = dict(found.get("done", {})) if is_ours else {}
        self._tries: dict[str, int] = {}

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError):  # damaged: every step may be done again
            return {}
        return found if isinstance(found, dict) else {}

    def is_done(self, step: str) -> bool:
        """True if a step came to its end."""
        return step in self._done

    def fact(self, step: str) -> str:
        """Return what a step said at its end."""
        return str(self._done.get(step, {}).get("said", ""))

    def done(self, step: str, said: str) -> None:
        """Write down that a step came to its end; raises OSError."""
        self._done[step] = {"at": self._clock(), "said": said}
        self._write()

    def undone(self, step: str) -> None:
        """Forget that a step was done; raises OSError."""
        if self._done.pop(step, None) is not None:
            self._write()

    def _write(self) -> None:
        document = {**self._whose, "board": self._board.to_json(), "done": self._done}
        durable.write(self._path, json.dumps(document, indent=1, sort_keys=True).encode())

    def tell(self, step: str, state: str, said: str) -> None:
        """Write ``status.json``: where it is, in which state (``doing``, ``waiting``, ``failed``, ``done``), in words.

        A disk that refuses costs the file, never the step.
        """
        if state in ("failed", "waiting"):
            self._tries[step] = self._tries.get(step, 0) + 1
        document = {
            "step": step, "state": state, "said": said, "at": self._clock(),
            "tries": self._tries.get(step, 0), "done": {name: one["said"] for name, one in self._done.items()},
        }  # fmt: skip
        try:
            self._status.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        except OSError:
            return


def _board(document: dict[str, Any]) -> BoardIdentity:
    found = document.get("board")
    try:
        return BoardIdentity.from_json(found) if isinstance(found, dict) else BoardIdentity()
    except Exception:
        return BoardIdentity()
