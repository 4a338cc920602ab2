# SPDX-License-Identifier: Apache-2.0
"""Cut one set of samples into four splits: by class, so that each part has its share, or by group, kept whole."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from compress.splits import NAMES, DataSplits, Labels, Raw, Split
from edge_contract.errors import DataError

__all__ = ["SHARES", "sizes_of", "split_by_class", "split_by_group"]

SHARES = {"train": 0.6, "calibration": 0.05, "validation": 0.15, "test": 0.2}


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
