# SPDX-License-Identifier: Apache-2.0
"""A run of the loop as a folder: what was done, when, with which digests; whole after a power cut at any moment.

::

    RUN/
    ├── run.json          states, times, words, lineage: replaced as a whole at each step
    ├── signal.json       the signal as it was taken
    ├── answers/          STEP.json: what a person said at a gate
    ├── capture.key       private key of the campaign, 0600; gone when the run has ended
    ├── captured/         samples.npz: the inputs, opened; 0700
    ├── healed/           what training leaves
    ├── bundle/           the new bundle, signed
    └── lock              held by the process at work

A step notes in ``run.json`` what it is about to ask of the server before it asks, and looks for it there first when it
begins again: a process that was killed between the two does nothing twice.
"""

import contextlib
import fcntl
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from edge_contract import durable
from edge_contract.errors import StropError, UsageError

__all__ = ["ENDED", "SCHEMA", "STEPS", "LaterError", "Run", "runs_in"]

SCHEMA: Final = "strop.loop/1"
STEPS: Final = (
    *("take", "capture", "collect", "examine", "train", "bundle", "register"),
    *("canary", "promote", "rollout", "verify", "close"),
)
"""In their order. See docs/loop.md."""
ENDED: Final = ("healed", "failed")
NAME: Final = "run.json"


class LaterError(StropError):
    """A run cannot go on now, through no fault of its own; it stands where it stood, and ``--resume`` goes on."""


class Run:
    """One recorded run. ``document`` is what ``run.json`` holds.

    Args:
        folder: Of the run; it exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.document: dict[str, Any] = json.loads((folder / NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError("no run of the loop", where=str(folder), fix="strop loop status lists the runs") from error
        if self.document.get("schema") != SCHEMA:
            raise UsageError(f"schema {self.document.get('schema')!r:.40}, not {SCHEMA!r}", where=str(folder))

    @classmethod
    def create(cls, runs: Path, signal: dict[str, Any], config: str) -> "Run":
        """Make the folder of a new run for a signal: ``signal-7``, and ``signal-7-2`` after a first one failed.

        Args:
            runs: Folder of all runs; made if new.
            signal: As ``GET /drift/signals/N`` gives it.
            config: Text of the loop.toml that it begins with.
        """
        number, count = int(signal["number"]), 1
        runs.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            folder = runs / (f"signal-{number}" if count == 1 else f"signal-{number}-{count}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                break
            count += 1
        durable.write(folder / "loop.toml", config.encode())
        durable.write(folder / "signal.json", json.dumps(signal, indent=1, sort_keys=True).encode() + b"\n")
        document = {
            "schema": SCHEMA,
            "id": f"loop-{secrets.token_hex(6)}",
            "signal": number,
            "model": signal["signal"]["model"],
            "state": "running",
            "reason": "",
            "created_at": time.time(),
            "lineage": {"parent": signal["signal"]["bundle"], "signal": number},
            "steps": [{"name": name, "state": "pending"} for name in STEPS],
        }
        durable.write(folder / NAME, _bytes(document))
        return cls(folder)

    @property
    def id(self) -> str:
        """Under this name the run holds its signal."""
        return str(self.document["id"])

    @property
    def number(self) -> int:
        """Of the signal."""
        return int(self.document["signal"])

    @property
    def model(self) -> str:
        return str(self.document["model"])

    @property
    def state(self) -> str:
        """``running``, ``asking``, ``failing`` (cleaning up), ``healed`` or ``failed``."""
        return str(self.document["state"])

    @property
    def lineage(self) -> dict[str, Any]:
        """What came of what: parent, signal, captured_sha256, bundle, version, rollouts."""
        found: dict[str, Any] = self.document["lineage"]
        return found

    @property
    def signal(self) -> dict[str, Any]:
        """The signal as it was taken."""
        found: dict[str, Any] = json.loads((self.folder / "signal.json").read_text(encoding="utf-8"))["signal"]
        return found

    def step(self, name: str) -> dict[str, Any]:
        """Return a step's record; what is changed in it counts after ``save``."""
        return next(one for one in self.document["steps"] if one["name"] == name)

    def facts(self, name: str) -> dict[str, Any]:
        """Return what a step has noted."""
        found: dict[str, Any] = self.step(name).setdefault("facts", {})
        return found

    def note(self, name: str, **facts: Any) -> None:
        """Keep facts of a step, durably."""
        self.facts(name).update(facts)
        self.save()

    def save(self, **changes: Any) -> None:
        """Replace ``run.json``.

        Raises:
            LaterError: The disk refuses; the run is as it was and can be resumed.
        """
        self.document.update(changes)
        self.document["updated_at"] = time.time()
        try:
            durable.write(self.folder / NAME, _bytes(self.document))
        except OSError as error:
            fix = "make room, then: strop loop run --resume"
            raise LaterError(f"cannot be written: {error.strerror}", where=str(self.folder / NAME), fix=fix) from error

    def answer(self, step: str) -> dict[str, Any] | None:
        """Return what a person said at the gate before a step, None before that."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "answers" / f"{step}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found

    def say(self, step: str, word: str, by: str, note: str) -> None:
        """Keep a person's answer at a gate; the process at work finds it.

        Raises:
            UsageError: No such step, or it was answered or done already.
        """
        if step not in STEPS:
            raise UsageError(f"unknown step '{step}'", where=str(self.folder), fix=f"use one of {', '.join(STEPS)}")
        if self.state in ENDED or self.step(step)["state"] not in ("pending", "asking"):
            state = self.state if self.state in ENDED else self.step(step)["state"]
            raise UsageError(f"there is nothing to answer: it is {state}", where=f"{self.folder} step {step}")
        if (before := self.answer(step)) is not None:
            raise UsageError(f"{before['by']} has said {before['word']}", where=f"{self.folder} step {step}")
        (self.folder / "answers").mkdir(exist_ok=True, mode=0o700)
        answer = {"word": word, "by": by, "note": " ".join(note.split())[:300], "time": time.time()}
        durable.write(self.folder / "answers" / f"{step}.json", json.dumps(answer).encode() + b"\n")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run's lock: two processes on one run would do everything twice.

        Raises:
            StropError: Another process works on it.
        """
        with (self.folder / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StropError("another process works on this run", where=str(self.folder)) from error
            yield


def runs_in(folder: Path) -> list[Run]:
    """Return the runs of a folder, oldest first; what is no run is left out."""
    found = []
    for path in sorted(folder.glob("signal-*")) if folder.is_dir() else []:
        with contextlib.suppress(UsageError):
            found.append(Run(path))
    return sorted(found, key=lambda run: float(run.document["created_at"]))


def _bytes(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode() + b"\n"
