# SPDX-License-Identifier: Apache-2.0
"""A replay plays a file of raw inputs at a fixed rate."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.model import Model
from edge_agent.runner.sources.base import MAX_RATE_HZ, Pace, Taken, read_spec
from edge_contract.errors import DataError, UsageError

__all__ = ["Replay", "ReplaySpec", "open_spec"]

Array = NDArray[Any]


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
        fields = read_spec(document, where, "replay", ("path", "rate_hz", "loop", "shuffle_seed"))
        seed = fields.integer("shuffle_seed", minimum=0) if document.get("shuffle_seed") is not None else None
        spec = cls(Path(fields.text("path")), fields.number("rate_hz"), fields.flag("loop", False), seed)
        if not 0 <= spec.rate_hz <= MAX_RATE_HZ:
            raise UsageError(f"a rate of {spec.rate_hz:g} Hz", where=f"{where}.rate_hz", fix="use 0 to 100000")
        return spec


class Replay:
    """Images of a file, again and again or once. The file is mapped, not read: it may be larger than memory.

    Raises:
        DataError: No such file, no .npy, or not images.
    """

    def __init__(self, name: str, spec: ReplaySpec, now: float = 0.0) -> None:
        self.name, self.spec = name, spec
        self._images = _open_images(spec.path)
        self._order = self._rounds()
        self._pace = Pace(spec.rate_hz, now)
        self.taken, self.restart = self._pace.taken, self._pace.restart

    @property
    def due(self) -> float:
        """When the next input is due."""
        return self._pace.due

    def take(self) -> Taken | None:
        """Return the next input, None after the last one."""
        index = next(self._order, None)
        return None if index is None else Taken(f"{self.name}:{index}", self._images[index])

    def holds(self, model: Model | None) -> None:
        """The file's inputs are for whichever model."""

    def lost(self) -> int:
        """Return 0: a replay skips nothing."""
        return 0

    def close(self) -> None:
        """The mapping ends with the last reference."""

    def _rounds(self) -> Iterator[int]:
        count, seed = len(self._images), self.spec.shuffle_seed
        rng = None if seed is None else np.random.default_rng(seed)
        while True:
            yield from range(count) if rng is None else rng.permutation(count).tolist()
            if not self.spec.loop:
                return


def open_spec(name: str, spec: dict[str, Any], now: float, wake: Callable[[], None]) -> Replay:
    """Open a replay; raises UsageError or DataError."""
    del wake  # the clock alone drives it
    return Replay(name, ReplaySpec.from_json(spec, f"source '{name}'"), now)


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
