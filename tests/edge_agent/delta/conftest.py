# SPDX-License-Identifier: Apache-2.0
"""Files that resemble each other, and a patch applied on disk."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edge_agent.delta.apply import Wanted, apply


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def weights(count: int, seed: int = 0) -> bytes:
    """int8 numbers as a network has them."""
    return np.clip(np.rint(np.random.default_rng(seed).normal(0, 25, count)), -127, 127).astype(np.int8).tobytes()


def nudged(data: bytes, share: float, seed: int = 1) -> bytes:
    """The same with ±1 added to a share of them."""
    draw, found = np.random.default_rng(seed), np.frombuffer(data, np.uint8).copy()
    rows = np.flatnonzero(draw.random(len(found)) < share)
    found[rows] += draw.choice(np.array([1, 255], np.uint8), len(rows))
    return found.tobytes()


@dataclass
class Disk:
    """A folder with a base, a patch and the place for a result."""

    folder: Path

    def put(self, base: bytes, patch: bytes) -> None:
        (self.folder / "base").write_bytes(base)
        (self.folder / "patch").write_bytes(patch)
        (self.folder / "out").unlink(missing_ok=True)

    def apply(self, base: bytes, patch: bytes, target: bytes) -> bytes:
        """Apply, and check that base and patch were only read."""
        self.put(base, patch)
        try:
            wanted = Wanted(digest(base), digest(target), len(target))
            size = apply(self.folder / "base", self.folder / "patch", self.folder / "out", wanted)
        finally:
            assert (self.folder / "base").read_bytes() == base
            assert (self.folder / "patch").read_bytes() == patch
        found = (self.folder / "out").read_bytes()
        assert len(found) == size
        return found

    @property
    def has_result(self) -> bool:
        return (self.folder / "out").exists()


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)
