# SPDX-License-Identifier: Apache-2.0
"""Seven physiotherapy exercises, recorded by a smartwatch on either wrist of ten people.

The recordings lie in the package seglearn (BSD-3); nothing is downloaded. A person stands in one split only: whoever
wears the watch next was not there when the model learned.
"""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.sources import DataSplits, Split
from edge_contract.errors import MissingDependencyError

__all__ = ["SUBJECTS", "augment", "load"]

SUBJECTS = {"train": (1, 2, 3, 4, 5, 6), "calibration": (7,), "validation": (8,), "test": (9, 10)}
LENGTH, HOP = 100, 50
NAMES = ("pendulum", "abduction", "forward elevation", "internal rotation", "external rotation", "trapezius", "row")


def _recordings() -> dict[str, Any]:
    """Return the recordings; seglearn itself is not imported, its file is read."""
    found = importlib.util.find_spec("seglearn")
    if found is None or found.origin is None:
        raise MissingDependencyError(
            "the recordings are in the package seglearn", fix="run pip install 'strop[examples]'"
        )
    file = Path(found.origin).parent / "data" / "watch_dataset.npy"
    contents: dict[str, Any] = np.load(file, allow_pickle=True).item()  # a file of an installed package
    return contents


@cache
def load() -> DataSplits:
    """Return windows of two seconds at 50 Hz, float32 [N,100,6] (three accelerations, three rates), split by person.

    Metadata: ``subject``, the person, and ``side``, the wrist.

    Raises:
        MissingDependencyError: seglearn is not installed.
    """
    contents = _recordings()
    who = np.asarray(contents["subject"]).astype(int)
    parts = {}
    for name, subjects in SUBJECTS.items():
        chosen = np.flatnonzero(np.isin(who, subjects))
        windows = [_windows(contents["X"][i]) for i in chosen]
        y = np.concatenate([np.full(len(w), contents["y"][i]) for w, i in zip(windows, chosen, strict=True)])
        about = {
            key: np.concatenate([np.full(len(w), int(contents[key][i])) for w, i in zip(windows, chosen, strict=True)])
            for key in ("subject", "side")
        }
        parts[name] = Split(np.concatenate(windows), y.astype(np.int64), about)
    return DataSplits(**parts, labels=NAMES)


def _windows(recording: Any) -> Any:
    starts = np.arange(0, len(recording) - LENGTH + 1, HOP)
    return recording[starts[:, None] + np.arange(LENGTH)].astype(np.float32)


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return each window stronger or weaker by up to 20 % in each channel, shifted by up to half a second, with noise.

    Args:
        x: Windows, float32 [N,6,100].
        generator: Where the randomness comes from.
    """
    n, channels, length = x.shape
    gain = 1 + 0.2 * (2 * torch.rand(n, channels, 1, generator=generator) - 1)
    shift = torch.randint(-length // 4, length // 4 + 1, (n, 1), generator=generator)
    places = (torch.arange(length) + shift).clamp(0, length - 1)
    moved = x.gather(2, places[:, None].expand(-1, channels, -1))
    return moved * gain + 0.05 * torch.randn(x.shape, generator=generator)
