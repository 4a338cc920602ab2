# SPDX-License-Identifier: Apache-2.0
"""Real sources that are known to differ: two scans of digits, two wrists, other people."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift.coded import Seen
from benchmarks.drift.material import Made, Material, ask, kept
from edge_contract.profile import ReferenceProfile

__all__ = ["digit_images", "halves", "mnist", "watch"]

Array = NDArray[Any]


@cache
def mnist() -> Material:
    """Return MNIST's 5 000 digits and a CNN that 2 500 trained; pools: ``null`` and ``scikit-learn digits``."""
    return kept("mnist", _mnist)


def digit_images() -> dict[str, Array]:
    """Return the images of ``mnist``'s pools, uint8 [n, 28, 28], in their order."""
    from examples.digits.data import load_other

    raw, _, (_, _, null) = _images()
    return {"null": raw[null], "scikit-learn digits": np.asarray(load_other().x)}


def _images() -> tuple[Array, Array, list[Array]]:
    """Return MNIST's images and classes, and which rows train, are the reference, and are ``null``."""
    from examples.digits.data import load

    whole = load()
    parts = (whole.train, whole.calibration, whole.validation, whole.test)
    raw = np.concatenate([np.asarray(part.x) for part in parts])
    labels = np.concatenate([np.asarray(part.y) for part in parts])
    return raw, labels, np.split(np.random.default_rng(3).permutation(len(raw)), [2500, 3750])


def _mnist(folder: Path) -> Made:
    from benchmarks.training import drift_models
    from edge_contract.preprocess import Preprocess
    from examples.digits.data import load_other

    other, (raw, labels, (training, reference, null)) = load_other(), _images()
    scaled, names = Preprocess(scale=1 / 255), tuple("0123456789")
    net = drift_models.trained(
        drift_models.cnn, scaled, raw[training], labels[training], drift_models.Training(epochs=12, seed=3)
    )
    model = drift_models.quantized(net, scaled, raw[training], names, folder / "model.onnx")
    profile = drift_models.build_profile(model, raw[reference], labels[reference], names=names, runtime="onnxruntime")

    def pools() -> Iterator[tuple[str, Seen]]:
        yield "null", ask(model, raw[null], labels[null])
        yield "scikit-learn digits", ask(model, np.asarray(other.x), np.asarray(other.y))

    return profile, pools()


@cache
def watch() -> Material:
    """Return the smartwatch on one wrist of eight people; the first half of each series trained the network.

    The third quarter of each series is the reference, the last quarter ``null``. Two people never trained
    (``unseen people``), nor did the other wrist (``other wrist``). A pool is in the order of recording; ``group`` is
    the series, and ``halves`` holds the second halves of the known people's series.
    """
    return kept("watch", _watch)


def _watch(folder: Path) -> Made:
    from benchmarks.training import drift_models
    from examples.watch import data

    contents = data._recordings()  # noqa: SLF001
    who, side = (np.asarray(contents[key]).astype(int) for key in ("subject", "side"))
    preprocess = drift_models.watch_preprocess()

    def cut(chosen: Array, first: float, last: float) -> tuple[Array, Array, Array]:
        raw, truth, group = list[Array](), list[Array](), list[Array]()
        for i in np.flatnonzero(chosen):
            series = contents["X"][i]
            piece = data._windows(series[int(first * len(series)) : int(last * len(series))])  # noqa: SLF001
            raw.append(piece)
            truth.append(np.full(len(piece), int(contents["y"][i])))
            group.append(np.full(len(piece), i))
        return np.concatenate(raw), np.concatenate(truth), np.concatenate(group)

    known = (side == 0) & (who > 2)
    given = cut(known, 0.0, 0.5)
    training = drift_models.Training(epochs=25, batch=32, seed=5)
    net = drift_models.trained(drift_models.watch_net, preprocess, *given[:2], training, augment=data.augment)
    model = drift_models.quantized(net, preprocess, given[0], data.NAMES, folder / "model.onnx")
    profile = drift_models.build_profile(model, *cut(known, 0.5, 0.75)[:2], names=data.NAMES, runtime="onnxruntime")

    def pools() -> Iterator[tuple[str, Seen]]:
        yield "null", ask(model, *cut(known, 0.75, 1.0))
        yield "halves", ask(model, *cut(known, 0.5, 1.0))
        yield "unseen people", ask(model, *cut((side == 0) & (who <= 2), 0.0, 1.0))
        yield "other wrist", ask(model, *cut((side == 1) & (who > 2), 0.0, 1.0))

    return profile, pools()


class _Told(NamedTuple):
    """Answers that were given before; the input is the row."""

    seen: Seen

    def infer(self, raw: Array, /) -> "_Answer":
        row = int(raw[0])
        return _Answer(self.seen.logits[row], self.seen.embedding[row])


class _Answer(NamedTuple):
    logits: Array
    embedding: Array | None


def halves(seen: Seen, names: tuple[str, ...], random: np.random.Generator) -> tuple[ReferenceProfile, Seen]:
    """Return the profile of one random half of a pool, cut by group, and the other half; order is kept."""
    from benchmarks.training.drift_models import build_profile

    groups = random.permutation(np.unique(seen.group))
    chosen = np.isin(seen.group, groups[: len(groups) // 2])
    reference = seen.take(np.flatnonzero(chosen))
    rows = np.arange(len(reference), dtype=np.float32)[:, None]
    profile = build_profile(_Told(reference), rows, reference.truth, names=names)
    return profile, seen.take(np.flatnonzero(~chosen))
