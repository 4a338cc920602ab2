# SPDX-License-Identifier: Apache-2.0
"""Weights as products of two thinner ones, by truncated singular value decomposition.

Factors come in the order in which they are applied, each shaped as the weight of a layer of its own: [r, in, …] and
[out, r, …]. Both carry the square root of the singular values, so that neither is much larger than the other: that is
what fine-tuning and int8 like best.
"""

import math

import torch
from torch import Tensor

__all__ = ["balanced", "channel_factors", "full_rank", "matrix_of", "product", "spatial_factors", "tails", "truncated"]


def truncated(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the best factors of a rank: left [m, rank] and right [rank, n], balanced.

    Args:
        matrix: [m, n]; computed in float64.
        rank: 1 to min(m, n).

    Example:
        The singular values of diag(3, 2, 1) are its entries; rank 2 drops the smallest:

        >>> left, right = truncated(torch.diag(torch.tensor([3.0, 2.0, 1.0])), 2)
        >>> (left @ right).abs().round(decimals=4).diagonal().tolist()
        [3.0, 2.0, 0.0]

    Reference:
        Eckart & Young 1936: no matrix of this rank is nearer in the Frobenius norm.
    """
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    root = s[:rank].sqrt()
    return (u[:, :rank] * root).to(matrix.dtype), (root[:, None] * v[:rank]).to(matrix.dtype)


def tails(matrix: Tensor) -> Tensor:
    """Return the energy that each rank loses, float64 [min(m, n) + 1]: the sum of the squared singular values after it.

    Example:
        >>> tails(torch.diag(torch.tensor([3.0, 2.0, 1.0]))).round(decimals=4).tolist()
        [14.0, 5.0, 1.0, 0.0]
    """
    energy: Tensor = torch.linalg.svdvals(matrix.double()) ** 2
    return torch.cat([energy.flip(0).cumsum(0).flip(0), energy.new_zeros(1)])


def matrix_of(weight: Tensor, how: str) -> Tensor:
    """Return the matrix of which ``svd`` [out, in·kh·kw] or ``spatial-svd`` [in·kh, out·kw] takes the rank.

    Args:
        weight: [out, in] or [out, in, …] of a convolution; [out, in, kh, kw] for ``spatial-svd``.
        how: ``svd`` or ``spatial-svd``.
    """
    if how == "spatial-svd":
        outputs, inputs, height, width = weight.shape
        return weight.permute(1, 2, 0, 3).reshape(inputs * height, outputs * width)
    return weight.flatten(1)


def full_rank(weight: Tensor, how: str) -> int:
    """Return the rank at which nothing is lost."""
    return min(matrix_of(weight, how).shape)


def channel_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return [rank, in, kh, kw] and [out, rank, 1, 1] of a convolution, or [rank, in] and [out, rank].

    Example:
        >>> first, second = channel_factors(torch.randn(6, 4, 3, 3), 2)
        >>> list(first.shape), list(second.shape)
        ([2, 4, 3, 3], [6, 2, 1, 1])

    Reference:
        Zhang et al. 2016, "Accelerating very deep convolutional networks", section 3.1.
    """
    left, right = truncated(matrix_of(weight, "svd"), rank)
    ones = [1] * (weight.dim() - 2)
    return right.reshape(rank, *weight.shape[1:]), left.reshape(weight.shape[0], rank, *ones)


def spatial_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return a column kernel [rank, in, kh, 1] and a row kernel [out, rank, 1, kw].

    Example:
        A kernel that is the product of a column and a row needs rank 1:

        >>> column, row = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.0, 0.0, -1.0])
        >>> sobel = (column[:, None] * row).reshape(1, 1, 3, 3)
        >>> first, second = spatial_factors(sobel, 1)
        >>> torch.allclose(product("spatial-svd", (first, second)), sobel, atol=1e-6)
        True

    Reference:
        Jaderberg et al. 2014, "Speeding up convolutional neural networks with low rank expansions", scheme 2, in the
        closed form of Tai et al. 2016.
    """
    outputs, inputs, height, width = weight.shape
    left, right = truncated(matrix_of(weight, "spatial-svd"), rank)
    first = left.reshape(inputs, height, rank).permute(2, 0, 1)[..., None]
    second = right.reshape(rank, outputs, width).permute(1, 0, 2)[:, :, None]
    return first.contiguous(), second.contiguous()


def balanced(factors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return factors of the same product in which the two sides of each inner direction are equally long.

    Args:
        factors: In the order of application, [r, in, …], …, [out, r, …].

    Example:
        >>> first, second = balanced((torch.full((1, 4), 8.0), torch.full((4, 1), 2.0)))
        >>> first[0, 0].item(), second[0, 0].item()
        (4.0, 4.0)
    """
    made = list(factors)
    for i in range(len(made) - 1):
        before = made[i].flatten(1).norm(dim=1)
        after = made[i + 1].transpose(0, 1).flatten(1).norm(dim=1)
        grow = torch.where((before > 0) & (after > 0), (after / before).sqrt(), torch.ones_like(before))
        made[i] = made[i] * grow.reshape(-1, *[1] * (made[i].dim() - 1))
        made[i + 1] = made[i + 1] / grow.reshape(1, -1, *[1] * (made[i + 1].dim() - 2))
    return tuple(made)


def product(how: str, factors: tuple[Tensor, ...]) -> Tensor:
    """Return the weight that factors stand for, [out, in, …]: what the layers compute one after the other.

    Args:
        how: ``svd``, ``spatial-svd`` or ``tucker-2``.
        factors: In the order of application.
    """
    first, last = factors[0], factors[-1]
    if how == "spatial-svd":
        return torch.einsum("riy,orx->oiyx", first[..., 0], last[:, :, 0])
    if how == "tucker-2":
        taps = torch.einsum("or,rs...->os...", last.flatten(1), factors[1])
        return torch.einsum("os...,si->oi...", taps, first.flatten(1))
    shape = (last.shape[0], *first.shape[1:])
    return (last.flatten(1) @ first.reshape(first.shape[0], math.prod(shape[1:]))).reshape(shape)
