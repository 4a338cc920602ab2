# SPDX-License-Identifier: Apache-2.0
"""Check that four splits are well formed and share no input, and seal the test split."""

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from compress.splits import NAMES, DataSplits, Raw, SealedSplit, Split, WorkingData
from edge_contract.errors import DataError

__all__ = ["FEW_SAMPLES", "separate"]

FEW_SAMPLES = 64
"""Fewer calibration samples give ranges that depend on luck."""


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
