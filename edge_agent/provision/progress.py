# SPDX-License-Identifier: Apache-2.0
"""Carry the steps out, one after the other, for ever if need be: what fails is named, waited for, and tried again."""

import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.provision.journal import Journal
from edge_agent.provision.steps import MAY_FAIL, STEPS, Run
from edge_contract.errors import EnrolmentError, StropError

__all__ = ["Patience", "carry_out", "say"]

_LOOK_S: Final = 1.0


@dataclass(frozen=True)
class Patience:
    """How long to wait between two attempts, in seconds.

    Attributes:
        first, cap: Pauses double from the first up to the cap.
        refused: After a refusal that a person has to mend; a new token on the card ends it at once.
        is_once: Try each step once, and give up at the first failure.
    """

    first: float = 2.0
    cap: float = 300.0
    refused: float = 3600.0
    is_once: bool = False

    def pause(self, tries: int, *, is_refused: bool) -> float:
        """Return the pause after so many failures, with full jitter in its upper half.

        Example:
            >>> [Patience(first=2, cap=10).most(n) for n in (1, 2, 3, 4)]
            [2.0, 4.0, 8.0, 10]
        """
        most = self.refused if is_refused else self.most(tries)
        return most * random.uniform(0.5, 1.0)

    def most(self, tries: int) -> float:
        """Return the longest pause after so many failures."""
        return min(self.cap, self.first * float(1 << min(tries - 1, 20)))


def say(line: str) -> None:
    """Write one line for whoever stands before the screen; a console that is gone costs the line."""
    try:
        sys.stdout.write(f"strop: {line}\n")
        sys.stdout.flush()
    except OSError:
        return


def carry_out(run: Run, journal: Journal, patience: Patience, sleep: Callable[[float], None] = time.sleep) -> int:
    """Carry out every step that is not done yet; return 0 when all are, 1 if ``is_once`` met a failure.

    What a step needs from the disk and finds refused is a failure like any other: it is tried again.
    """
    if journal.was_copied:
        say("this card was begun on another board: everything is looked at again, and this board needs its own token")
    for number, name in enumerate(STEPS, 1):
        if not journal.is_done(name):
            heading = f"{run.plan.device}: step {number} of {len(STEPS)}, {name}"
            if not _one(name, heading, _Under(run, journal, patience, sleep)):
                return 1
    journal.tell("all", "done", "the first boot is complete")
    return 0


@dataclass(frozen=True)
class _Under:
    """What every attempt needs."""

    run: Run
    journal: Journal
    patience: Patience
    sleep: Callable[[float], None]


def _one(name: str, heading: str, under: _Under) -> bool:
    """Carry one step out, as often as it takes; False if it failed and there is to be no second attempt."""
    tries = 0
    while True:
        under.journal.tell(name, "doing", "")
        say(heading)
        try:
            said = STEPS[name](under.run)
            under.journal.done(name, said)
        except (StropError, OSError, ValueError) as error:
            tries += 1
            if name in MAY_FAIL:
                say(f"{name} failed and is left out: {error}")
                under.journal.tell(name, "failed", str(error))
                return True
            if not _waited(name, error, tries, under):
                return False
        else:
            say(f"{heading}: {said}")
            return True


def _waited(name: str, error: Exception, tries: int, under: _Under) -> bool:
    """Tell a failure and wait; False if there is to be no second attempt."""
    run, journal, patience = under.run, under.journal, under.patience
    is_refused = isinstance(error, EnrolmentError)
    goes_on = ". The factory model goes on" if run.plan.factory and journal.is_done("services") else ""
    if patience.is_once:
        journal.tell(name, "failed", str(error))
        say(f"{name}: {error}{goes_on}")
        return False
    pause = patience.pause(tries, is_refused=is_refused)
    journal.tell(name, "waiting", str(error))
    say(f"{name}: {error}{goes_on}. Next attempt in {pause:.0f} s")
    _wait(pause, run.plan.token if is_refused else None, under.sleep)
    return True


def _wait(seconds: float, watched: Path | None, sleep: Callable[[float], None]) -> None:
    """Wait, or until a file changes: a person brought a new token."""
    before = _look(watched)
    while seconds > 0:
        sleep(min(_LOOK_S, seconds))
        seconds -= _LOOK_S
        if watched is not None and _look(watched) != before:
            return


def _look(path: Path | None) -> tuple[int, int]:
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return 0, 0
    return (found.st_mtime_ns, found.st_size) if found is not None else (0, 0)
