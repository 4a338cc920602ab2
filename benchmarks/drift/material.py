# SPDX-License-Identifier: Apache-2.0
"""What the measurements share: quantized networks, their reference profiles, and their answers to pools of inputs.

Made once, in minutes, and kept under ``build/drift`` (git ignores it): the networks are trained and exported by
``benchmarks.training.drift_models``, their answers come from ONNX Runtime. The reference, the null pools and the
shifted pools have no sample in common with what a network was trained on; of the digits they are fresh draws.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift.coded import Coded, Seen, code
from benchmarks.drift.shifts import DIGITS, FAILING_LOUDLY, Shift, fresh
from edge_agent.runner.features import input_statistics, stride_for
from edge_contract.profile import ReferenceProfile

if TYPE_CHECKING:
    from edge_agent.runner.model import Model

__all__ = ["BUILD", "FULL", "QUICK", "Made", "Material", "Sizes", "ask", "digits", "fashion", "kept"]

BUILD: Final = Path(__file__).resolve().parents[2] / "build/drift"
VERSION: Final = "1"
Array = NDArray[Any]


@dataclass(frozen=True)
class Sizes:
    """How many samples the digits' pools have."""

    name: str
    reference: int
    calibration: int
    null: int
    shifted: int
    training: int = 12_000


FULL: Final = Sizes("full", 20_000, 20_000, 60_000, 6_000)
QUICK: Final = Sizes("quick", 4_000, 4_000, 12_000, 1_500)


@dataclass(frozen=True, eq=False)
class Material:
    """A network's reference profile and its answers to pools of inputs, by name of the pool."""

    name: str
    profile: ReferenceProfile
    pools: Mapping[str, Seen]

    def coded(self, pool: str) -> Coded:
        """Return what the device would add for each sample of a pool."""
        return code(self.profile, self.pools[pool])


def ask(model: "Model", raw: Array, truth: Array, group: Array | None = None) -> Seen:
    """Return a model's answers to raw inputs [n, …]."""
    answers = [model.infer(one) for one in raw]
    logits = np.stack([answer.logits for answer in answers]).astype(np.float32)
    given = [answer.embedding for answer in answers if answer.embedding is not None]
    embedding = np.stack(given).astype(np.float32) if given else np.zeros((len(raw), 0), np.float32)
    looks, saturated = np.zeros((3, 0)), np.zeros((2, 0))
    if raw.dtype == np.uint8 and raw.ndim in (3, 4):
        stride = stride_for(*raw.shape[1:3])
        parts = [input_statistics(raw[i : i + 500, ::stride, ::stride]) for i in range(0, len(raw), 500)]
        looks = np.concatenate([part.values for part in parts], axis=1)
        saturated = np.stack([np.concatenate([part.dark for part in parts]), np.concatenate([p.bright for p in parts])])
    return Seen(logits, embedding, truth, looks, saturated, np.arange(len(raw)) if group is None else group)


Made = tuple[ReferenceProfile, Iterator[tuple[str, Seen]]]


def kept(name: str, make: Callable[[Path], Made]) -> Material:
    """Return a material from its folder, or make it; a folder without ``profile.json`` is unfinished and made anew."""
    folder = BUILD / f"{name}-{VERSION}"
    last = folder / "profile.json"
    if not last.exists():
        folder.mkdir(parents=True, exist_ok=True)
        profile, pools = make(folder)
        for pool, seen in pools:
            np.savez(folder / f"{pool}.npz", **vars(seen))
        last.write_bytes(profile.to_bytes())
    found = {path.stem: Seen(**np.load(path)) for path in sorted(folder.glob("*.npz"))}
    return Material(name, ReferenceProfile.from_bytes(last.read_bytes()), found)


@cache
def digits(seed: int = 0, sizes: Sizes = FULL) -> Material:
    """Return the digits protocol (specification, A3): scikit-learn's 8×8 digits and a perceptron in integers.

    Half of the images train; the other half, drawn afresh each time, gives every pool. Pools: ``calibration`` and
    ``null``, and one for each shift of ``DIGITS``.
    """
    return kept(f"digits-{sizes.name}-{seed}", partial(_digits, seed=seed, sizes=sizes))


def _digits(folder: Path, *, seed: int, sizes: Sizes) -> Made:
    from sklearn.datasets import load_digits

    from benchmarks.training import drift_models
    from edge_contract.preprocess import Preprocess

    found, random = load_digits(), np.random.default_rng(seed)
    raw, labels = np.rint(found.images * (255 / 16)).astype(np.uint8), found.target.astype(np.int64)
    order = random.permutation(len(raw))
    base, rest = order[: len(raw) // 2], order[len(raw) // 2 :]

    def draw(rows: Array, count: int) -> tuple[Array, Array, Array]:
        chosen = random.choice(rows, count)
        return fresh(raw, chosen, random), labels[chosen], chosen

    given = draw(base, sizes.training)[:2]
    scaled, names = Preprocess(scale=1 / 255), tuple("0123456789")
    training = drift_models.Training(epochs=12, batch=64, seed=seed)
    net = drift_models.trained(drift_models.mlp, scaled, *given, training)
    model = drift_models.quantized(net, scaled, given[0], names, folder / "model.onnx")
    profile = drift_models.build_profile(model, *draw(rest, sizes.reference)[:2], names=names, runtime="onnxruntime")

    def pools() -> Iterator[tuple[str, Seen]]:
        for name, size in (("calibration", sizes.calibration), ("null", sizes.null)):
            yield name, ask(model, *draw(rest, size))
        for name, shift in DIGITS.items():
            images, truth, group = draw(rest, sizes.shifted)
            yield name, ask(model, shift(images, random), truth, group)

    return profile, pools()


@cache
def fashion() -> Material:
    """Return Fashion-MNIST and a CNN in integers that 20 000 images trained.

    Of the 50 000 others 15 000 are the reference, 15 000 ``calibration`` and 20 000 ``null``, which the shifts of
    "Failing Loudly" change into a pool each.
    """
    return kept("fashion", _fashion)


def _fashion(folder: Path) -> Made:
    from benchmarks.training import drift_models
    from edge_contract.preprocess import Preprocess
    from examples.fashion.data import NAMES, load

    whole, random = load(), np.random.default_rng(7)
    parts = (whole.train, whole.calibration, whole.validation, whole.test)
    raw = np.concatenate([np.asarray(part.x) for part in parts])
    labels = np.concatenate([np.asarray(part.y) for part in parts])
    order = random.permutation(len(raw))
    training, reference, calibration, null = np.split(order, [20_000, 35_000, 50_000])
    scaled = Preprocess(scale=1 / 255)
    net = drift_models.trained(
        drift_models.cnn, scaled, raw[training], labels[training], drift_models.Training(epochs=6, batch=64, seed=7)
    )
    model = drift_models.quantized(net, scaled, raw[training], NAMES, folder / "model.onnx")
    profile = drift_models.build_profile(model, raw[reference], labels[reference], names=NAMES, runtime="onnxruntime")
    shifts: dict[str, Shift] = dict(FAILING_LOUDLY)
    shifts["adversarial"] = lambda images, _: drift_models.adversarial(net, scaled, images, step=12.0)

    def pools() -> Iterator[tuple[str, Seen]]:
        for name, rows in (("reference", reference), ("calibration", calibration)):
            yield name, ask(model, raw[rows], labels[rows])
        yield "null", ask(model, raw[null], labels[null])
        for name, shift in shifts.items():
            yield name, ask(model, shift(raw[null], random), labels[null])

    return profile, pools()
