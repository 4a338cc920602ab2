# SPDX-License-Identifier: Apache-2.0
"""Tucker-2: a convolution becomes 1×1 (fewer inputs), a k×k core, 1×1 (back to all outputs).

Theory of operation: the channel axes of W [out, in, k…] are turned into bases U [out, ro] and V [in, ri] with
orthonormal columns; the core is W seen in them. HOSVD takes both bases from W itself; HOOI then improves each one while
the other is held, which never loses: the error falls or stays.
"""

import torch
from torch import Tensor

from compress.factorize.svd import balanced

__all__ = ["hooi", "hosvd_tails", "tucker_factors"]

ROUNDS = 30
SETTLED = 1e-9
"""HOOI ends when a round moves less than this share of the energy."""


def _project(tensor: Tensor, basis: Tensor, axis: int) -> Tensor:
    """Multiply an axis [n] by a basis [n, r]: that axis becomes [r]."""
    projected: Tensor = torch.tensordot(tensor, basis, dims=([axis], [0]))
    return projected.movedim(-1, axis)


def _basis(tensor: Tensor, axis: int, rank: int) -> Tensor:
    """Return the leading directions of an axis, [n, rank], orthonormal columns."""
    unfolded = tensor.movedim(axis, 0).flatten(1)
    # The Gram matrix is [n, n], however large the kernel is; float64 leaves eight digits to its square roots.
    vectors: Tensor = torch.linalg.eigh(unfolded @ unfolded.T).eigenvectors
    return vectors.flip(1)[:, :rank]


def hosvd_tails(weight: Tensor) -> Tensor:
    """Return what truncated HOSVD loses at every pair of ranks, float64 [in + 1, out + 1]; index [ri, ro].

    The bases are orthonormal, so what is kept is the energy of the core's corner.

    Example:
        >>> weight = torch.zeros(2, 2, 1, 1)
        >>> weight[0, 0], weight[1, 1] = 2.0, 1.0
        >>> hosvd_tails(weight).round(decimals=6).abs().tolist()[1:]
        [[5.0, 1.0, 1.0], [5.0, 1.0, 0.0]]
    """
    full = weight.double()
    core = _project(_project(full, _basis(full, 0, full.shape[0]), 0), _basis(full, 1, full.shape[1]), 1)
    energy = core.flatten(2).square().sum(2).T if core.dim() > 2 else core.square().T  # [in, out]
    kept = energy.cumsum(0).cumsum(1)
    lost = full.square().sum() - torch.nn.functional.pad(kept, (1, 0, 1, 0))
    return lost.clamp_min(0.0)


def hooi(weight: Tensor, ranks: tuple[int, int], *, rounds: int = ROUNDS) -> tuple[Tensor, Tensor]:
    """Return the bases [in, ri] and [out, ro] after higher-order orthogonal iteration, float64.

    Args:
        weight: [out, in, …].
        ranks: (ri, ro).
        rounds: At most; 0 gives HOSVD.

    Reference:
        De Lathauwer, De Moor & Vandewalle 2000, "On the best rank-1 and rank-(R1, …, RN) approximation", algorithm 4.2.
    """
    full, (rank_in, rank_out) = weight.double(), ranks
    inputs, outputs = _basis(full, 1, rank_in), _basis(full, 0, rank_out)
    total, before = float(full.square().sum()), -1.0
    for _ in range(rounds):
        outputs = _basis(_project(full, inputs, 1), 0, rank_out)
        half = _project(full, outputs, 0)
        inputs = _basis(half, 1, rank_in)
        kept = float(_project(half, inputs, 1).square().sum())
        if kept - before <= SETTLED * total:
            break
        before = kept
    return inputs, outputs


def tucker_factors(weight: Tensor, ranks: tuple[int, int], *, rounds: int = ROUNDS) -> tuple[Tensor, Tensor, Tensor]:
    """Return [ri, in, 1, 1], [ro, ri, kh, kw] and [out, ro, 1, 1].

    The core's size is shared out (``svd.balanced``), so that none is much larger than the others.

    Example:
        >>> [list(f.shape) for f in tucker_factors(torch.randn(8, 6, 3, 3), (4, 5))]
        [[4, 6, 1, 1], [5, 4, 3, 3], [8, 5, 1, 1]]

    Reference:
        Kim et al. 2016, "Compression of deep convolutional neural networks for fast and low power mobile
        applications", section 3.1.
    """
    inputs, outputs = hooi(weight, ranks, rounds=rounds)
    core = _project(_project(weight.double(), outputs, 0), inputs, 1)
    ones = [1] * (weight.dim() - 2)
    first = inputs.T.reshape(ranks[0], weight.shape[1], *ones)
    last = outputs.reshape(weight.shape[0], ranks[1], *ones)
    first, core, last = balanced((first, core, last))
    return first.to(weight.dtype), core.to(weight.dtype), last.to(weight.dtype)
