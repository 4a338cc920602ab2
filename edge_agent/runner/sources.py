# SPDX-License-Identifier: Apache-2.0
"""Where inputs come from, and when the next one is due. A replay plays a file of raw images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import ContractError, DataError, UsageError
from edge_contract.fields import Fields

__all__ = ["BACKLOG_S", "Pace", "Replay", "ReplaySpec", "open_source"]

Array = NDArray[Any]
BACKLOG_S: Final = 1.0
MAX_RATE_HZ: Final = 100_000.0


class Pace:
    """When the next input is due, on any monotonic clock in seconds.

    Due times are counted from one start, so they do not drift by the time that an inference takes. Up to BACKLOG_S late
    is caught up; more (a load, a suspended board) is forgiven, because a burst would say nothing new.

    Example:
        >>> pace = Pace(20.0, now=100.0)
        >>> pace.taken(100.004), pace.due
        (None, 100.05)
    """

    def __init__(self, rate_hz: float, now: float) -> None:
        self._rate_hz, self._start, self._count = rate_hz, now, 0

    @property
    def due(self) -> float:
        """When the next input is due; with a rate of 0 always now."""
        return self._start + self._count / self._rate_hz if self._rate_hz else self._start

    def taken(self, now: float) -> None:
        """Count an input that was taken now."""
        self._count += 1
        if now - self.due > BACKLOG_S:
            self.restart(now)

    def restart(self, now: float) -> None:
        """Begin again: the next input is due now."""
        self._start, self._count = now, 0


@dataclass(frozen=True)
class ReplaySpec:
    """A replay's settings.

    Attributes:
        path: An .npy file of raw inputs: images [N, H, W] or [N, H, W, C], clips [N, T], windows [N, length, C].
        rate_hz: Inputs a second; 0 as fast as the model answers.
        loop: Begin again after the last image.
        shuffle_seed: Another order in each round, from this seed; None keeps the file's.
    """

    path: Path
    rate_hz: float
    loop: bool = False
    shuffle_seed: int | None = None

    @classmethod
    def from_json(cls, document: dict[str, Any], where: str) -> "ReplaySpec":
        """Return the settings in a decoded object.

        Raises:
            UsageError: A field is missing, unknown, of another type or out of range.
        """
        try:
            given = {key: value for key, value in document.items() if value is not None}
            fields = Fields(given, where)
            fields.text("kind", among=("replay",))
            spec = cls(
                Path(fields.text("path")),
                fields.number("rate_hz"),
                fields.flag("loop", False),
                fields.integer("shuffle_seed", minimum=0) if "shuffle_seed" in given else None,
            )
        except ContractError as error:
            raise UsageError(error.what, where=error.where, fix=error.fix) from error
        if unknown := fields.rest():
            fix = "use kind, path, rate_hz, loop, shuffle_seed"
            raise UsageError(f"unknown key '{min(unknown)}'", where=where, fix=fix)
        if not 0 <= spec.rate_hz <= MAX_RATE_HZ:
            raise UsageError(f"a rate of {spec.rate_hz:g} Hz", where=f"{where}.rate_hz", fix="use 0 to 100000")
        return spec


class Replay:
    """Images of a file, again and again or once. The file is mapped, not read: it may be larger than memory.

    Raises:
        DataError: No such file, no .npy, or not images.
    """

    def __init__(self, name: str, spec: ReplaySpec) -> None:
        self.name, self.spec = name, spec
        self._images = _open_images(spec.path)
        self._order = self._rounds()

    def take(self) -> tuple[str, Array] | None:
        """Return ("<source>:<index>", raw image), or None after the last one."""
        index = next(self._order, None)
        return None if index is None else (f"{self.name}:{index}", self._images[index])

    def _rounds(self) -> Iterator[int]:
        count, seed = len(self._images), self.spec.shuffle_seed
        rng = None if seed is None else np.random.default_rng(seed)
        while True:
            yield from range(count) if rng is None else rng.permutation(count).tolist()
            if not self.spec.loop:
                return


def open_source(name: str, spec: dict[str, Any]) -> Replay:
    """Open a source by its specification; raises UsageError or DataError."""
    return Replay(name, ReplaySpec.from_json(spec, f"source '{name}'"))


def _open_images(path: Path) -> Array:
    try:
        images: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else f"not an .npy array: {error}"
        raise DataError(reason, where=str(path), fix="give an .npy file of raw images") from error
    if (
        not isinstance(images, np.ndarray)
        or images.ndim not in (2, 3, 4)
        or (images.ndim == 2 and images.dtype == np.uint8)  # clips are int16 or real; this is one image alone
        or not len(images)
        or images.dtype.kind not in "uif"
    ):
        found = f"{images.dtype} {list(images.shape)}" if isinstance(images, np.ndarray) else "an archive"
        raise DataError(f"no raw images but {found}", where=str(path), fix="give [N, H, W], [N, H, W, C] or [N, T]")
    return images
