# SPDX-License-Identifier: Apache-2.0
"""Four splits, kept apart by construction.

Compression steps are handed a ``WorkingData``, which has no test split at all. The test split travels beside it
in a ``SealedSplit``, which only the final evaluation opens, once.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_contract.errors import DataError

__all__ = [
    "FEW_SAMPLES",
    "NAMES",
    "UNLABELLED",
    "DataSplits",
    "SealedSplit",
    "Split",
    "WorkingData",
    "sizes_of",
    "split_by_class",
    "split_by_group",
]

NAMES = ("train", "calibration", "validation", "test")
SHARES = {"train": 0.6, "calibration": 0.05, "validation": 0.15, "test": 0.2}
FEW_SAMPLES = 64
"""Fewer calibration samples give ranges that depend on luck."""
UNLABELLED = -1
"""The class of every sample of a split that has no labels."""
Raw = npt.NDArray[np.generic]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Inputs and labels.

    Attributes:
        x: Raw inputs, uint8 or real: images [N,H,W] or [N,H,W,C], windows of a series [N,T,C], clips of sound [N,T].
        y: Class of each, int64 [N]; -1 for all of them if there are no labels (``unlabelled``).
        metadata: Name → what is known of each sample beside its class, [N]: the site, the camera, the person. Nothing
            is trained on it; checks take accuracy apart by it.
    """

    x: Raw
    y: Labels
    metadata: Mapping[str, Raw] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.y)

    @classmethod
    def unlabelled(cls, x: Raw) -> "Split":
        """Return a split without labels, for recipes with ``metric = "agreement"``.

        Example:
            >>> Split.unlabelled(np.zeros((2, 4, 4), np.uint8)).is_labelled
            False
        """
        return cls(x, np.full(len(x), UNLABELLED, np.int64))

    @property
    def is_labelled(self) -> bool:
        """False if no sample has a class."""
        return bool((self.y != UNLABELLED).any())

    def take_first(self, count: int) -> "Split":
        """Return the first ``count`` samples."""
        return self.take(np.arange(min(count, len(self))))

    def take(self, rows: Labels) -> "Split":
        """Return the samples of some rows, with their metadata.

        Example:
            >>> split = Split(np.zeros((3, 2, 2)), np.array([0, 1, 2]), {"site": np.array(["a", "b", "b"])})
            >>> split.take(np.array([2, 0])).metadata["site"].tolist()
            ['b', 'a']
        """
        metadata = {name: column[rows] for name, column in self.metadata.items()}
        return Split(self.x[rows], self.y[rows].astype(np.int64), metadata)


@dataclass(frozen=True)
class DataSplits:
    """What a data source returns: four splits, and the names of the classes (default "0", "1", …)."""

    train: Split
    calibration: Split
    validation: Split
    test: Split
    labels: tuple[str, ...] = ()

    def items(self) -> list[tuple[str, Split]]:
        """Return (name, split) in the order of ``NAMES``."""
        return [(name, getattr(self, name)) for name in NAMES]

    @property
    def classes(self) -> int:
        """Number of classes: of the labels if they are named, else the largest class seen plus 1 (0: no labels)."""
        return len(self.labels) or 1 + max(int(split.y.max()) for _, split in self.items())

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.labels or tuple(str(i) for i in range(self.classes))


@dataclass
class SealedSplit:
    """The test split, closed until the final evaluation. ``openings`` counts; the second one is refused.

    ``unlabelled`` is a second one beside it, of inputs without labels that no step sees; None if there are none.

    Example:
        >>> sealed = SealedSplit(Split(np.zeros((3, 2, 2), np.uint8), np.array([0, 1, 1])))
        >>> len(sealed), len(sealed.open()), sealed.openings
        (3, 3, 1)
        >>> sealed.open()
        Traceback (most recent call last):
        edge_contract.errors.DataError: the test split was already read; it is read once, at the end
    """

    _split: Split = field(repr=False)
    openings: int = 0
    unlabelled: "SealedSplit | None" = None

    def __len__(self) -> int:
        return len(self._split)

    @property
    def is_labelled(self) -> bool:
        """False if it has no labels."""
        return self._split.is_labelled

    def digests(self, of: Callable[[Raw], list[bytes]]) -> list[bytes]:
        """Return a digest of each raw input, for the search for leaks; neither an input nor a label comes out."""
        return of(self._split.x)

    def open(self) -> Split:
        """Return the split, the first time.

        Raises:
            DataError: It was opened before.
        """
        if self.openings:
            raise DataError("the test split was already read", fix="it is read once, at the end")
        self.openings += 1
        return self._split


@dataclass(frozen=True)
class WorkingData:
    """All that a compression step may see: no test split.

    Attributes:
        train, calibration, validation: The splits.
        labels: Names of the classes.
        digest: SHA-256 over all four splits, for the lineage.
        notes: What a person should know about the data.
        unlabelled: Further raw inputs without labels, for training with a teacher and for calibration; None if there
            are none.
    """

    train: Split
    calibration: Split
    validation: Split
    labels: tuple[str, ...]
    digest: str
    notes: tuple[str, ...] = ()
    unlabelled: Raw | None = None

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.labels)


def separate(
    splits: DataSplits,
    *,
    where: str,
    needs_labels: bool = True,
    unlabelled: Raw | None = None,
    held_out: npt.NDArray[np.bool_] | None = None,
) -> tuple[WorkingData, SealedSplit]:
    """Check the four splits and return what steps may see, and the sealed test split.

    Args:
        splits: From the source.
        where: For messages.
        needs_labels: False accepts splits without labels.
        unlabelled: Further inputs without labels, of the same shape as the splits'; none of them may stand in a split.
        held_out: Which of these are sealed with the test split [M]; none by default.

    Raises:
        DataError: A split is empty, mislabelled, holds NaN, or shares an input with another one.
    """
    for name, split in splits.items():
        _check_form(split, f"{where} ({name} split)")
    for name, split in splits.items():
        if split.is_labelled or needs_labels:
            _check_classes(split, splits.classes, f"{where} ({name} split)")
    shapes = {name: split.x.shape[1:] for name, split in splits.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"splits of different shapes {shapes}", where=where, fix="give all splits one shape")
    prints = _fingerprints(splits)
    _check_apart(prints, where)
    names = splits.label_names
    digest, notes = _digest(splits, prints), _warnings(splits)
    judges = None
    if unlabelled is not None:
        digest = _check_unlabelled(splits, prints, unlabelled, digest, f"{where} (unlabelled)")
        if held_out is not None and held_out.any():
            judges = SealedSplit(Split.unlabelled(unlabelled[held_out]))
            unlabelled = unlabelled[~held_out]
    work = WorkingData(splits.train, splits.calibration, splits.validation, names, digest, notes, unlabelled)
    return work, SealedSplit(splits.test, unlabelled=judges)


def _check_unlabelled(splits: DataSplits, prints: Mapping[str, list[bytes]], x: Raw, digest: str, where: str) -> str:
    """Check inputs without labels as the splits are checked, and return the digest with them."""
    _check_form(Split.unlabelled(x) if x.ndim else Split(x, splits.train.y), where)
    if x.shape[1:] != splits.train.x.shape[1:]:
        what = f"inputs {list(x.shape[1:])}, those of the splits {list(splits.train.x.shape[1:])}"
        raise DataError(what, where=where, fix="give them one shape")
    own = [_print(image) for image in x]
    _check_apart({**prints, "unlabelled": own}, where, (*NAMES, "unlabelled"))
    return hashlib.sha256(digest.encode() + x.dtype.str.encode() + b"".join(own)).hexdigest()


def _warnings(splits: DataSplits) -> tuple[str, ...]:
    count = len(splits.calibration)
    if count >= FEW_SAMPLES:
        return ()
    return (f"only {count} calibration samples: ranges may be too narrow; give at least {FEW_SAMPLES}",)


def _check_form(split: Split, where: str) -> None:
    if split.x.ndim not in (2, 3, 4) or split.y.ndim != 1 or len(split.x) != len(split.y):
        what = f"inputs {list(split.x.shape)} and labels {list(split.y.shape)}"
        raise DataError(what, where=where, fix="give x [N,H,W], [N,H,W,C] or [N,T,C], and y [N]")
    for name, column in split.metadata.items():
        if column.shape != split.y.shape:
            what = f"metadata '{name}' {list(column.shape)} for labels {list(split.y.shape)}"
            raise DataError(what, where=where, fix="give one value for each sample")
    if not len(split):
        raise DataError("the split is empty", where=where, fix="give it at least one sample")
    if split.x.dtype.kind not in "uif" or split.y.dtype.kind not in "ui":
        what = f"inputs {split.x.dtype} and labels {split.y.dtype}"
        raise DataError(what, where=where, fix="give numbers and whole-numbered classes")
    if split.x.dtype.kind == "f":
        bad = ~np.isfinite(split.x.reshape(len(split), -1)).all(axis=1)
        if bad.any():
            what = f"{int(bad.sum())} inputs hold NaN or Inf (the first is number {int(bad.argmax())})"
            raise DataError(what, where=where, fix="clean the data")


def _check_classes(split: Split, classes: int, where: str) -> None:
    if not split.is_labelled:
        fix = 'give it labels, or set metric = "agreement"'
        raise DataError("the split has no labels", where=where, fix=fix)
    low, high = int(split.y.min()), int(split.y.max())
    if low < 0 or high >= classes:
        fix = f"use 0 to {classes - 1}" if classes > 0 else "number them from 0"
        raise DataError(f"classes {low} to {high}", where=where, fix=fix)


def _fingerprints(splits: DataSplits) -> dict[str, list[bytes]]:
    return {name: [_print(image) for image in split.x] for name, split in splits.items()}


def _print(image: Raw) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()


def _check_apart(prints: Mapping[str, list[bytes]], where: str, names: tuple[str, ...] = NAMES) -> None:
    seen: dict[bytes, str] = {}
    for name in names:
        shared = [(seen[one], row) for row, one in enumerate(prints[name]) if one in seen]
        if shared:
            other, row = shared[0]
            what = f"{len(shared)} inputs of {name} are also in {other} (the first is number {row})"
            raise DataError(what, where=where, fix="give each input to one split")
        seen.update(dict.fromkeys(prints[name], name))


def _digest(splits: DataSplits, prints: Mapping[str, list[bytes]]) -> str:
    total = hashlib.sha256()
    for name, split in splits.items():
        total.update(f"{name} {split.x.dtype.str} {split.x.shape}".encode())
        total.update(b"".join(prints[name]))
        total.update(np.ascontiguousarray(split.y, dtype="<i8").tobytes())
    return total.hexdigest()


def sizes_of(count: int) -> dict[str, int]:
    """Return how many of ``count`` samples each split gets: 60 % train, 5 % calibration, 15 % validation, 20 % test.

    Example:
        >>> sizes_of(1000)
        {'train': 600, 'calibration': 50, 'validation': 150, 'test': 200}
    """
    return {name: int(share * count) for name, share in SHARES.items()}


def split_by_group(
    x: Raw,
    y: Labels,
    groups: npt.NDArray[np.generic],
    *,
    seed: int,
    labels: tuple[str, ...] = (),
    metadata: Mapping[str, Raw] | None = None,
) -> DataSplits:
    """Return a seeded random split in which no group (a person, a recording) stands in two parts.

    Groups go, in random order, to the split that lacks most of its share, an empty one first.

    Args:
        x: Inputs [N,…].
        y: Classes, int64 [N].
        groups: Group of each, [N].
        seed: Decides the order.
        labels: Names of the classes.
        metadata: Name → what else is known of each, [N].

    Raises:
        DataError: Fewer groups than splits.

    Example:
        >>> people = np.repeat(np.arange(10), 6)
        >>> found = split_by_group(np.arange(60).reshape(60, 1, 1), np.arange(60) % 3, people, seed=1)
        >>> {name: sorted({int(people[row]) for row in split.x.ravel()}) for name, split in found.items()}
        {'train': [0, 1, 2, 5, 6, 9], 'calibration': [8], 'validation': [4], 'test': [3, 7]}
    """
    names, counts = np.unique(groups, return_counts=True)
    if len(names) < len(NAMES):
        what = f"{len(names)} groups for {len(NAMES)} splits"
        raise DataError(what, fix="give more groups, or make the four splits yourself")
    wanted = {name: share * len(y) for name, share in SHARES.items()}
    placed: dict[str, list[int]] = {name: [] for name in NAMES}
    for group in np.random.default_rng(seed).permutation(len(names)):
        lacking = {name: _lack(wanted[name], [int(counts[g]) for g in placed[name]]) for name in NAMES}
        placed[max(NAMES, key=lacking.__getitem__)].append(int(group))
    rows = {name: np.flatnonzero(np.isin(groups, names[chosen])) for name, chosen in placed.items()}
    whole = Split(x, y, metadata or {})
    parts = [whole.take(rows[name]) for name in NAMES]
    return DataSplits(parts[0], parts[1], parts[2], parts[3], labels)


def _lack(wanted: float, there: list[int]) -> float:
    """Return how many samples a split lacks; an empty one comes first, the smallest before the others."""
    return wanted - sum(there) if there else 1e12 - wanted


def split_by_class(
    x: Raw,
    y: Labels,
    sizes: Mapping[str, int],
    *,
    seed: int,
    labels: tuple[str, ...] = (),
    metadata: Mapping[str, Raw] | None = None,
) -> DataSplits:
    """Return a seeded random split in which every class has its share in each part.

    Args:
        x: Inputs [N,…].
        y: Classes, int64 [N].
        sizes: Samples of each split in ``NAMES``; together at most N.
        seed: Decides the shuffle.
        labels: Names of the classes.
        metadata: Name → what else is known of each, [N].

    Raises:
        DataError: More samples are asked for than there are.

    Example:
        >>> y = np.arange(40) % 4
        >>> sizes = {"train": 20, "calibration": 4, "validation": 8, "test": 8}
        >>> splits = split_by_class(np.arange(40 * 4, dtype=np.uint8).reshape(40, 2, 2), y, sizes, seed=1)
        >>> np.bincount(splits.validation.y).tolist()
        [2, 2, 2, 2]
    """
    total = sum(sizes[name] for name in NAMES)
    if total > len(y):
        raise DataError(f"{total} samples asked for, {len(y)} there", fix="ask for smaller splits")
    order = _interleaved(y, seed)
    edges = np.cumsum([sizes[name] for name in NAMES])
    shuffle = np.random.default_rng(seed + 1)
    parts = [shuffle.permutation(rows) for rows in np.split(order, edges)[: len(NAMES)]]
    whole = Split(x, y, metadata or {})
    train, calibration, validation, test = (whole.take(rows) for rows in parts)
    return DataSplits(train, calibration, validation, test, labels)


def _interleaved(y: Labels, seed: int) -> Labels:
    """Return all rows in an order of which every stretch holds each class in proportion."""
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(y))
    place = np.empty(len(y))
    for label in np.unique(y):
        rows = shuffled[y[shuffled] == label]
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.lexsort((np.argsort(shuffled), place)).astype(np.int64)
