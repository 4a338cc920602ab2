# SPDX-License-Identifier: Apache-2.0
"""Four splits, kept apart by construction.

Compression steps are handed a ``WorkingData``, which has no test split at all. The test split travels beside it
in a ``SealedSplit``, which only the final evaluation opens, once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_contract.errors import DataError

__all__ = [
    "NAMES",
    "UNLABELLED",
    "DataSplits",
    "Labels",
    "Raw",
    "SealedSplit",
    "Split",
    "WorkingData",
]

NAMES = ("train", "calibration", "validation", "test")
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
