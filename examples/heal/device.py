# SPDX-License-Identifier: Apache-2.0
"""The device of the story, without its processes: what its drift says of a stream, and what its capture sends."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress import sources
from compress.recipe import Recipe
from edge_contract.counts import Counters
from edge_contract.findings import DriftState, Level, Verdict
from edge_contract.health import Health
from edge_contract.profile import ReferenceProfile
from edge_contract.summary import DriftSummary, Flag, short_hash
from edge_contract.verdict import judge
from export.bundle.reference import build_profile
from fleet.adapters.unsealing import write_npz
from strop.loop.present import Present

__all__ = ["Watch", "send"]

WINDOW: Final = 200
DEVICES: Final = ("pi-01", "pi-02", "pi-03")

Raw = NDArray[Any]


@dataclass(frozen=True)
class Watch:
    """What a device's drift said of a stream.

    Attributes:
        profile: Of the model that is shipped.
        verdicts: Window by window.
        changed: Window in which the camera was changed.
        drifted: Counters of the windows that alarmed, added up.
    """

    profile: ReferenceProfile
    verdicts: tuple[Verdict, ...]
    changed: int
    drifted: Counters

    @classmethod
    def of(cls, present: Present, own: Recipe, before: Raw, after: Raw) -> "Watch":
        """Watch a stream in windows of 200 inputs, as the device does: before the camera was changed, and after.

        The profile is counted from the int8 answers to the recipe's validation split, as in a bundle.
        """
        data, _ = sources.load_data(own)
        answers = _Recorded(present, data.validation.x)
        profile = build_profile(answers, data.validation.x, data.validation.y, names=data.labels)
        state, verdicts, drifted = DriftState(), [], Counters.zero(len(profile.labels))
        stream = np.concatenate([before, after])
        for number in range(len(stream) // WINDOW):
            counters = present.count(stream[number * WINDOW : (number + 1) * WINDOW], profile)
            verdict, state = judge(profile, _summary(profile, counters, number), state)
            verdicts.append(verdict)
            if verdict.level is Level.ALARM:
                drifted = drifted.merge(counters)
        return cls(profile, tuple(verdicts), len(before) // WINDOW, drifted)

    @property
    def first_alarm(self) -> int:
        """Number of the first window that alarmed, -1 if none did."""
        return next((i for i, one in enumerate(self.verdicts) if one.level is Level.ALARM), -1)

    @property
    def words(self) -> str:
        """One line for people."""
        levels = " ".join(one.level.name.lower() for one in self.verdicts)
        moved = "; ".join(self.verdicts[self.first_alarm].moved[:2]) if self.first_alarm >= 0 else "nothing moved"
        return f"camera changed before window {self.changed + 1}: {levels} ({moved})"

    def to_json(self) -> dict[str, Any]:
        levels = [one.level.name.lower() for one in self.verdicts]
        return {"levels": levels, "changed": self.changed, "first_alarm": self.first_alarm}


def _summary(profile: ReferenceProfile, counters: Counters, number: int) -> DriftSummary:
    hour = 3_600_000
    return DriftSummary(
        device=short_hash(DEVICES[0], 8),
        bundle="0" * 32,
        profile_crc=profile.crc,
        boot="0" * 8,
        window=number,
        start_ms=number * hour,
        duration_ms=hour,
        flags=Flag.NONE,
        counters=counters,
        health=Health(),
    )


@dataclass(frozen=True)
class _Answer:
    logits: Raw
    embedding: Raw | None


class _Recorded:
    """Answers that were computed together, handed out one by one in the order of the inputs."""

    def __init__(self, present: Present, x: Raw) -> None:
        logits, embedding = present.answer(x)
        self._answers: Iterator[_Answer] = (
            _Answer(one, None if embedding is None else embedding[row]) for row, one in enumerate(logits)
        )

    def infer(self, raw: Raw, /) -> _Answer:
        """Return the next answer."""
        del raw
        return next(self._answers)


def send(x: Raw, path: Path) -> int:
    """Write inputs as ``strop fleet capture export`` does, sent by three devices in turn; return how many."""
    return write_npz(path, ((_facts(row), _npy(one)) for row, one in enumerate(x)))


def _facts(row: int) -> dict[str, Any]:
    device = DEVICES[row % len(DEVICES)]
    return {"device": device, "number": row // len(DEVICES) + 1, "why": "drifted", "time": float(row)}


def _npy(raw: Raw) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, raw, allow_pickle=False)
    return buffer.getvalue()
