# SPDX-License-Identifier: Apache-2.0
"""Pairs of real sources as the hours of a small fleet: which device sees what in which hour, counted by the Observer.

The answers are those that the quantized networks gave in ONNX Runtime (``benchmarks.drift.real_material``). The
device's own ``Observer`` counts them, with the images themselves where there are any, and with the time that the
network's file takes on this machine for each input.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift.coded import Seen
from benchmarks.drift.material import BUILD, VERSION, Material
from benchmarks.drift.real_material import digit_images, halves, mnist, watch
from edge_agent.runner.observe import Observer
from edge_contract.counts import Counters
from edge_contract.profile import ReferenceProfile

__all__ = ["SCENES", "Scene", "Source", "counted", "hours_of", "rows_of", "session_clock"]

DEVICES: Final = 6
SAMPLES: Final = 200
HEALTHY_HOURS: Final = 6
SHIFTED_HOURS: Final = 5

Array = NDArray[Any]
Clock = Callable[[Array | None], float]
"""An image, or None where the input is none → microseconds of one inference."""


@dataclass(frozen=True, eq=False)
class Source:
    """Answers to a pool, and its images where it has them [n, H, W]."""

    seen: Seen
    images: Array | None = None

    def __len__(self) -> int:
        return len(self.seen)


@dataclass(frozen=True, eq=False)
class Scene:
    """What one picture is taken of.

    Attributes:
        name: Of the pictures.
        model: Of the bundle.
        make: Returns the reference, what is healthy, and what it turns into (None: nothing).
        folder: Where the network's file lies, under ``build/drift``.
        in_order: Whether a device sees its pool in the order of recording; else one sample at a time, as a device that
            thins its inferences to independent ones.
        versions: Version → how many of the devices see the other source at last.
    """

    name: str
    model: str
    make: Callable[[], tuple[ReferenceProfile, Source, Source | None]]
    folder: str
    in_order: bool = False
    versions: Mapping[str, int] = field(default_factory=lambda: {"1.0.0": DEVICES, "1.1.0": 1})


def _pair(
    material: Callable[[], Material], other: str, images: Callable[[], Mapping[str, Array]] = dict
) -> Callable[[], tuple[ReferenceProfile, Source, Source | None]]:
    def make() -> tuple[ReferenceProfile, Source, Source | None]:
        found, pictures = material(), images()
        sources = [Source(found.pools[pool], pictures.get(pool)) for pool in ("null", other)]
        return found.profile, sources[0], sources[1]

    return make


def _halves(material: Callable[[], Material], pool: str) -> Callable[[], tuple[ReferenceProfile, Source, None]]:
    def make() -> tuple[ReferenceProfile, Source, None]:
        found = material()
        profile, other = halves(found.pools[pool], found.profile.labels, np.random.default_rng(71))
        return profile, Source(other), None

    return make


SCENES: Final = (
    Scene("wrist", "watch", _pair(watch, "other wrist"), "watch"),
    Scene("people", "watch", _pair(watch, "unseen people"), "watch"),
    Scene("digits", "digits", _pair(mnist, "scikit-learn digits", digit_images), "mnist"),
    Scene("watch-halves", "watch", _halves(watch, "halves"), "watch", in_order=True, versions={"1.0.0": 0}),
    Scene("digit-halves", "digits", _halves(mnist, "null"), "mnist", versions={"1.0.0": 0}),
)


def session_clock(scene: Scene) -> Clock:
    """Return what times the scene's network in ONNX Runtime, one thread, one input at a time.

    A time series is not kept with its answers, and what the input holds does not change how long it takes.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path: Path = BUILD / f"{scene.folder}-{VERSION}" / "model.onnx"
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    spec = session.get_inputs()[0]
    empty = np.zeros((1, *spec.shape[1:]), np.uint8)

    def clock(image: Array | None) -> float:
        given = empty if image is None else image.reshape(empty.shape)
        start = time.perf_counter()
        session.run(None, {spec.name: given})
        return 1e6 * (time.perf_counter() - start)

    return clock


def counted(profile: ReferenceProfile, source: Source, rows: Array, clock: Clock) -> Counters:
    """Return the counters of a window of some rows of a source, in this order."""
    observer = Observer(profile)
    for row in rows.tolist():
        image = None if source.images is None else source.images[row]
        embedding = source.seen.embedding[row] if profile.projection.components else None
        observer.observe(source.seen.logits[row], embedding, image, clock(image))
    return observer.counters()


def rows_of(source: Source, device: int, hour: int, random: np.random.Generator, *, in_order: bool) -> Array:
    """Return which rows a device sees in an hour.

    In order each device begins at another place, and goes on where it was; a source that ends begins again.
    """
    if in_order:
        begin = device * len(source) // DEVICES + hour * SAMPLES
        return (begin + np.arange(SAMPLES)) % len(source)
    rows: Array = random.choice(len(source), SAMPLES, replace=len(source) < SAMPLES)
    return rows


def hours_of(shifted: int, hours: Sequence[int] = (HEALTHY_HOURS, SHIFTED_HOURS)) -> list[tuple[int, int, bool]]:
    """Return (hour, device, whether it sees the other source) in the order of time.

    Args:
        shifted: So many devices see the other source, the first ones.
        hours: Before and after.

    Example:
        >>> [one for one in hours_of(1, (1, 1)) if one[1] < 2]
        [(0, 0, False), (0, 1, False), (1, 0, True), (1, 1, False)]
    """
    return [
        (hour, device, hour >= hours[0] and device < shifted) for hour in range(sum(hours)) for device in range(DEVICES)
    ]
