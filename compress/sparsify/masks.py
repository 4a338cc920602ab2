# SPDX-License-Identifier: Apache-2.0
"""Which weights become zero, and how zeros are held while a model is trained on."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from compress.trainer import AfterStep

__all__ = ["Masks", "hold", "held_zeros", "lamp_scores", "n_of_m", "smallest", "sparsity", "weights_of", "zeros_of"]

Masks = Mapping[str, Tensor]
"""For each weight, by its name: True where it stays, of its shape."""
MOST = 0.99
"""Largest share of one layer that becomes zero: no layer falls silent, whatever the ranking says."""
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


def weights_of(model: nn.Module, keep: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return the weights that may become zero, by name: of linear layers and convolutions, but depthwise ones.

    A depthwise kernel is few numbers with much to do; Zhu & Gupta 2017 leave them dense as well.

    Example:
        >>> list(weights_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Linear(8, 2))))
        ['0.weight', '2.weight']
    """
    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, _LAYERS))
    return {f"{name}.weight": m.weight for name, m in layers if name not in keep and not _is_depthwise(m)}


def _is_depthwise(module: nn.Module) -> bool:
    groups: int = getattr(module, "groups", 1)
    return groups > 1 and groups == getattr(module, "in_channels", 0)


def sparsity(weights: Mapping[str, Tensor]) -> float:
    """Return the share of zeros.

    Example:
        >>> sparsity({"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([0.0, 0.0])})
        0.75
    """
    count = sum(w.numel() for w in weights.values())
    return sum(int((w == 0).sum()) for w in weights.values()) / count if count else 0.0


def lamp_scores(weight: Tensor) -> Tensor:
    """Return each weight's square over the sum of all squares of its layer that are not smaller; of the weight's shape.

    The largest weight of every layer scores 1, so layers compare, and none is emptied.

    Example:
        >>> lamp_scores(torch.tensor([1.0, -2.0, 2.0])).tolist()  # 1/9, 4/8, 4/4
        [0.1111111119389534, 0.5, 1.0]

    Reference:
        Lee et al. 2021, "Layer-adaptive sparsity for the magnitude-based pruning", equation 3.
    """
    squares = weight.detach().flatten().square()
    order = squares.argsort(stable=True)
    ascending = squares[order]
    rest = ascending.flip(0).cumsum(0).flip(0)
    scores = torch.zeros_like(squares)
    scores[order] = torch.where(rest > 0, ascending / rest.clamp_min(1e-38), torch.zeros_like(rest))
    return scores.reshape(weight.shape)


def smallest(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return masks with this share of zeros, at the smallest scores over all layers together.

    Args:
        scores: ≥ 0, of the weights' shapes.
        share: 0 to 1; the number of zeros is that share of all, to the next integer.

    Example:
        >>> masks = smallest({"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([2.0, 4.0])}, 0.5)
        >>> masks["a"].tolist(), masks["b"].tolist()
        ([True, False], [False, True])
    """
    guarded = [_guarded(value.flatten().float()) for value in scores.values()]
    flat = torch.cat(guarded)
    stays = torch.ones(len(flat), dtype=torch.bool)
    stays[flat.argsort(stable=True)[: round(share * len(flat))]] = False
    parts = torch.split(stays, [len(part) for part in guarded])
    return {name: part.reshape(value.shape) for (name, value), part in zip(scores.items(), parts, strict=True)}


def _guarded(scores: Tensor) -> Tensor:
    safe = max(1, len(scores) - int(MOST * len(scores)))
    guarded = scores.clone()
    guarded[scores.topk(safe).indices] = math.inf
    return guarded


def n_of_m(weight: Tensor, kept: int, block: int) -> tuple[Tensor, Tensor]:
    """Return the mask that keeps the largest ``kept`` of every ``block`` weights along the inputs, and what it costs.

    Args:
        weight: [out, in, …], in a multiple of ``block``.
        kept, block: N and M.

    Returns:
        The mask, of the weight's shape; and for each weight the energy that its block would lose.

    Example:
        >>> mask, lost = n_of_m(torch.tensor([[4.0, 1.0, -3.0, 2.0]]), 2, 4)
        >>> mask.tolist(), lost.tolist()
        ([[True, False, True, False]], [[5.0, 5.0, 5.0, 5.0]])

    Reference:
        Mishra et al. 2021, "Accelerating sparse deep neural networks", section 3.
    """
    inputs_last = weight.detach().movedim(1, -1)
    blocks = inputs_last.reshape(-1, block)
    order = blocks.abs().argsort(dim=1, descending=True, stable=True)
    stays = torch.zeros_like(blocks, dtype=torch.bool).scatter_(1, order[:, :kept], value=True)
    lost = (blocks.square() * ~stays).sum(1, keepdim=True).expand_as(blocks)

    def back(values: Tensor) -> Tensor:
        return values.reshape(inputs_last.shape).movedim(-1, 1)

    return back(stays), back(lost)


def zeros_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the masks that hold the zeros there are."""
    return {name: weight.detach() != 0 for name, weight in weights.items()}


@torch.no_grad()
def hold(weights: Mapping[str, Tensor], masks: Masks) -> None:
    """Set weights to zero where they do not stay, in place."""
    for name, mask in masks.items():
        weights[name].mul_(mask.to(weights[name].device))


def held_zeros(model: nn.Module) -> AfterStep:
    """Return the callback by which later training keeps the zeros that a model has now.

    Args:
        model: As it enters the training, before a checkpoint is restored into it.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 2.0]]))
        >>> keep = held_zeros(layer)
        >>> _ = layer.weight.data.add_(1.0)
        >>> keep(layer, 1, 10)
        >>> layer.weight.tolist()
        [[0.0, 3.0]]
    """
    masks = {name: mask for name, mask in zeros_of(weights_of(model)).items() if not bool(mask.all())}

    def after_step(trained: nn.Module, step: int, steps: int) -> None:
        hold(weights_of(trained), masks)

    return after_step
