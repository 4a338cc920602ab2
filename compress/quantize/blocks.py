# SPDX-License-Identifier: Apache-2.0
"""Weights rounded by themselves: one scale for each row, or for each block of a row."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

__all__ = ["BLOCK", "HIGH", "Rounded", "block_size", "round_weight"]

BLOCK: Final = 32
HIGH: Final = {"weight-only-int8": 127, "weight-only-int4": 7}
_SMALLEST_BLOCK: Final = 8


@dataclass(frozen=True, eq=False)
class Rounded:
    """A weight [rows, ...] as integers.

    Attributes:
        codes: int8 [rows, blocks, size].
        scales: float32 [rows, blocks, 1]; weight = codes × scales.
    """

    codes: Tensor
    scales: Tensor

    def weight(self, shape: torch.Size) -> Tensor:
        """Return the rounded weight in float32."""
        return (self.codes.float() * self.scales).reshape(shape)


def block_size(columns: int) -> int:
    """Return into which blocks a row is cut: the largest divisor up to 32; the whole row if that is below 8.

    Example:
        >>> [block_size(columns) for columns in (768, 27, 72, 37)]
        [32, 27, 24, 37]
    """
    found = next(size for size in range(min(BLOCK, columns), 0, -1) if columns % size == 0)
    return found if found >= _SMALLEST_BLOCK else columns


def round_weight(weight: Tensor, form: str) -> Rounded:
    """Return a weight [rows, ...] rounded half to even to ``weight-only-int8`` or ``weight-only-int4``.

    Each scale is max|w| / 127 of a row, or max|w| / 7 of a block.

    Example:
        >>> rounded = round_weight(torch.tensor([[0.7, -0.34, 0.1]]), "weight-only-int4")
        >>> rounded.codes.tolist(), round(rounded.scales.item(), 4)
        ([[[7, -3, 1]]], 0.1)
    """
    rows = weight.detach().float().reshape(len(weight), -1)
    size = rows.shape[1] if form == "weight-only-int8" else block_size(rows.shape[1])
    blocks, high = rows.reshape(len(rows), -1, size), HIGH[form]
    scales = blocks.abs().amax(2, keepdim=True) / high
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))  # a block of zeros needs none
    return Rounded(torch.round(blocks / scales).clamp(-high, high).to(torch.int8), scales)
