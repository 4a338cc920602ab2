# SPDX-License-Identifier: Apache-2.0
"""Round a layer's weights together: what one of them errs is made up for by the others.

Over rows of inputs x, a linear function with weights q instead of w errs by (q - w)ᵀ H (q - w), H = E[x xᵀ]. Rounding
to the nearest minimises that only where inputs are uncorrelated. Here the weights are rounded one after the other, in
the order of falling H_ii, and what each errs is spread over the rest by the inverse of H (Frantar et al., "GPTQ:
Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022, section 3; Frantar and Alistarh,
"Optimal Brain Compression", 2022). Then every code moves to where it is best given all others, until none moves; the
same is done from the nearest codes, and the better end is taken.
"""

import torch
from torch import Tensor

__all__ = ["descend", "objective", "round_together"]

_SWEEPS = 20


def objective(codes: Tensor, wanted: Tensor, hessian: Tensor) -> Tensor:
    """Return the mean squared error [..., out] that codes [..., out, in] add to each output.

    Args:
        codes: In steps of the weight scale.
        wanted: The weights before rounding, in the same steps.
        hessian: [..., in, in].

    Example:
        >>> objective(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.75, 0.5]]), torch.eye(2))
        tensor([0.3125])
    """
    error = codes - wanted
    return ((error @ hessian) * error).sum(-1)


def round_together(wanted: Tensor, hessian: Tensor, limit: int = 127) -> Tensor:
    """Return codes [..., out, in] with a small ``objective``, never a larger one than rounding to the nearest has.

    Args:
        wanted: Weights in steps of their scale, float64 [..., out, in]; leading dimensions are groups.
        hessian: Mean products of inputs, float64 [..., in, in], positive definite.
        limit: Largest code.

    Example:
        >>> wanted = torch.tensor([[0.4, 0.4, 0.4]], dtype=torch.float64)
        >>> hessian = torch.ones(3, 3, dtype=torch.float64) + 0.01 * torch.eye(3, dtype=torch.float64)
        >>> round_together(wanted, hessian).sum().item()  # inputs are nearly equal: the sum of the weights counts
        1.0
    """
    order = hessian.diagonal(dim1=-2, dim2=-1).argsort(-1, descending=True)
    rows = order.unsqueeze(-1).expand_as(hessian)
    columns = order.unsqueeze(-2).expand_as(wanted)
    ordered = hessian.gather(-2, rows).gather(-1, rows.transpose(-2, -1))
    spread = _spread(wanted.gather(-1, columns), ordered, limit)
    codes = torch.empty_like(spread).scatter(-1, columns, spread)
    starts = codes, wanted.round().clamp(-limit, limit)
    first, second = (descend(start, wanted, hessian, limit) for start in starts)
    is_better = objective(first, wanted, hessian) <= objective(second, wanted, hessian)
    return torch.where(is_better.unsqueeze(-1), first, second)


def _spread(wanted: Tensor, hessian: Tensor, limit: int) -> Tensor:
    """Round column after column; the upper Cholesky factor of H's inverse says how the rest makes up for it."""
    upper = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    rest, codes = wanted.clone(), torch.empty_like(wanted)
    for i in range(wanted.shape[-1]):
        codes[..., i] = rest[..., i].round().clamp(-limit, limit)
        error = (rest[..., i] - codes[..., i]) / upper[..., i, i].unsqueeze(-1)
        rest[..., i + 1 :] -= error.unsqueeze(-1) * upper[..., i, i + 1 :].unsqueeze(-2)
    return codes


def descend(codes: Tensor, wanted: Tensor, hessian: Tensor, limit: int = 127) -> Tensor:
    """Return codes of which none can move alone without a larger ``objective``; arguments as in ``round_together``."""
    codes = codes.clone()
    slope = (codes - wanted) @ hessian
    for _ in range(_SWEEPS):
        has_moved = False
        for i in range(codes.shape[-1]):
            best = codes[..., i] - slope[..., i] / hessian[..., i, i].unsqueeze(-1)
            target = best.round().clamp(-limit, limit)
            # A move must pay by more than float64 errs, or two codes of equal worth would take turns.
            pays = (target - best).abs() < (codes[..., i] - best).abs() - 1e-9
            step = torch.where(pays, target - codes[..., i], 0.0)
            if step.any():
                codes[..., i] += step
                slope += step.unsqueeze(-1) * hessian[..., i, :].unsqueeze(-2)
                has_moved = True
        if not has_moved:
            break
    return codes
