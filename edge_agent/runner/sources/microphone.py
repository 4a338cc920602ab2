# SPDX-License-Identifier: Apache-2.0
"""Clips of sound from an ALSA device, one after the other or overlapping."""

import importlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.sources.base import Pushed, Taken, read_spec
from edge_contract.errors import DataError, MissingDependencyError, UsageError

__all__ = ["Clips", "MicrophoneSource", "open_spec"]

_PERIOD: Final = 1024


class Clips:
    """Cuts a stream of samples into clips of one length.

    Args:
        samples: Of one clip.
        hop: Samples between the starts of two clips.

    Example:
        >>> clips = Clips(4, 2)
        >>> [clip.tolist() for clip in clips.feed(np.arange(7, dtype=np.int16))]
        [[0, 1, 2, 3], [2, 3, 4, 5]]
    """

    def __init__(self, samples: int, hop: int) -> None:
        self._samples, self._hop = samples, hop
        self._rest = np.zeros(0, np.int16)

    def feed(self, samples: NDArray[np.int16]) -> list[NDArray[np.int16]]:
        """Return the clips that are complete with these samples, each an array of its own."""
        waiting = np.concatenate([self._rest, samples])
        starts = range(0, len(waiting) - self._samples + 1, self._hop)
        found = [waiting[start : start + self._samples].copy() for start in starts]
        self._rest = waiting[len(starts) * self._hop :]
        return found

    def forget(self) -> None:
        """Begin anew: samples were lost, and what waits has a gap."""
        self._rest = np.zeros(0, np.int16)


class MicrophoneSource(Pushed):
    """Records mono int16 in a thread; the newest clips wait."""

    def __init__(self, name: str, device: str, rate_hz: int, clips: Clips, wake: Callable[[], None]) -> None:
        super().__init__(name, wake, room=2, keeps_newest=True)
        alsa = _alsa()
        try:
            self._pcm = alsa.PCM(
                type=alsa.PCM_CAPTURE,
                device=device,
                channels=1,
                rate=rate_hz,
                format=alsa.PCM_FORMAT_S16_LE,
                periodsize=_PERIOD,
            )
        except alsa.ALSAAudioError as error:
            raise DataError(f"cannot record: {error}", where=device, fix="list the devices: arecord -L") from error
        self._clips, self._count = clips, 0
        threading.Thread(target=self._feed, name=f"source {name}", daemon=True).start()

    def _feed(self) -> None:
        while not self.is_closed:
            length, data = self._pcm.read()
            if length <= 0:  # an overrun: samples are gone
                self._clips.forget()
                continue
            for clip in self._clips.feed(np.frombuffer(data, "<i2").astype(np.int16, copy=False)):
                self.push(Taken(f"{self.name}:{self._count}", clip, time.monotonic()))
                self._count += 1
        self._pcm.close()


def _alsa() -> Any:
    try:
        return importlib.import_module("alsaaudio")
    except ImportError as error:
        fix = "apt-get install libasound2-dev && pip install pyalsaaudio"
        raise MissingDependencyError("pyalsaaudio is not installed", fix=fix) from error


def open_spec(name: str, spec: dict[str, Any], now: float, wake: Callable[[], None]) -> MicrophoneSource:
    """Open a microphone.

    Raises:
        UsageError: What stands in the table.
        DataError: The device cannot record so.
        MissingDependencyError: pyalsaaudio is not installed.
    """
    del now
    where = f"source '{name}'"
    f = read_spec(spec, where, "microphone", ("device", "rate_hz", "samples", "hop"))
    samples = f.integer("samples", minimum=1)
    hop = f.integer("hop", samples, minimum=1)
    rate_hz = f.integer("rate_hz", 16_000, minimum=1)
    if hop > samples:
        raise UsageError(f"a hop of {hop} beyond clips of {samples}", where=where, fix="use at most the clip's length")
    return MicrophoneSource(name, f.text("device", "default"), rate_hz, Clips(samples, hop), wake)
