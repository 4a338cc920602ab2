# SPDX-License-Identifier: Apache-2.0
"""Gradients of gates: what each sample's loss would say to a factor on each channel of each group.

Theory of operation: a channel of a group matters through the layers that read it. A factor m on what such a layer reads
has the gradient sum over positions of x · ∂L/∂x, and a gate that closes the whole group's channel has the sum of those
over all readers. In eval mode samples do not touch one another, so one backward pass over a batch gives the gradient of
every sample.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compress.prune.graph import Group, Member
from compress.prune.layers import LAYERS
from compress.prune.slices import sum_by_root
from edge_contract.errors import ModelError

__all__ = ["gate_gradients", "own_answer_loss"]


def own_answer_loss(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return the sum over samples of the cross-entropy with classes drawn from the logits themselves, [N,K,…] → scalar.

    The mean square of such gradients is the Fisher information; with the true classes it would only be so for a network
    that is never wrong (Kunstner et al. 2019, "Limitations of the empirical Fisher approximation").

    Example:
        >>> sure = torch.tensor([[0.0, 30.0]])  # the second class is drawn, and is no surprise
        >>> float(own_answer_loss(sure, torch.Generator().manual_seed(0)))
        0.0
    """
    flat = logits.movedim(1, -1).flatten(0, -2)
    drawn = torch.multinomial(flat.detach().softmax(1), 1, generator=generator)[:, 0]
    return nn.functional.cross_entropy(flat, drawn, reduction="sum")


def gate_gradients(
    model: nn.Module, groups: tuple[Group, ...], x: Tensor, *, seed: int = 0, batch: int = 64
) -> Mapping[str, Tensor]:
    """Return the gradient of every group's gates for every sample, [samples, width] each.

    Args:
        model: In eval mode, classes as logits [N,K], or of each place [N,K,H,W]; parameters are left without gradients.
        groups: Of its pruning graph.
        x: Inputs, float32 [N,C,H,W]. No labels are needed.
        seed: Draws the classes.
        batch: Inputs in one pass.

    Raises:
        ModelError: The answers are no logits, or nothing that can be gated reads a group.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[Tensor]] = {group.name: [] for group in groups}
    model.eval()
    for part in torch.split(x, batch):
        with _listening(groups) as reads, torch.enable_grad():
            logits = model(part)
            if logits.ndim < 2 or logits.shape[1] < 2:
                fix = "use method = 'taylor' or 'magnitude'"
                raise ModelError(f"the answers {list(logits.shape)} are no logits", where="hessian", fix=fix)
            tensors = [tensor for heard in reads.values() for tensor in heard]
            gradients = torch.autograd.grad(own_answer_loss(logits, generator), tensors, allow_unused=True)
        products = _products(reads, gradients)
        for group in groups:
            found[group.name].append(_gates(group, products, len(part)))
    return {name: torch.cat(parts) for name, parts in found.items()}


def _readers(group: Group) -> list[Member]:
    return [m for m in group.members if m.side == "in" and isinstance(m.module, LAYERS)]


@contextmanager
def _listening(groups: tuple[Group, ...]) -> Iterator[dict[nn.Module, list[Tensor]]]:
    """Keep what each reader reads; a copy of its own, so that its gradient is not that of the other readers."""
    reads: dict[nn.Module, list[Tensor]] = {}

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        own = inputs[0].clone() if inputs[0].requires_grad else inputs[0].detach().requires_grad_()
        reads.setdefault(module, []).append(own)
        return (own, *inputs[1:])

    modules = {member.module for group in groups for member in _readers(group)}
    hooks = [module.register_forward_pre_hook(keep) for module in modules]
    try:
        yield reads
    finally:
        for hook in hooks:
            hook.remove()


def _products(reads: dict[nn.Module, list[Tensor]], gradients: tuple[Tensor | None, ...]) -> dict[nn.Module, Tensor]:
    """Return x · ∂L/∂x summed over positions and over a module's calls, [N, features] each."""
    following = iter(gradients)
    totals: dict[nn.Module, Tensor] = {}
    for module, tensors in reads.items():
        for tensor in tensors:
            gradient = next(following)
            if gradient is None:
                continue
            product = tensor.detach() * gradient
            flat = product.flatten(2).sum(2) if not isinstance(module, nn.Linear) else _last(product)
            totals[module] = totals[module] + flat if module in totals else flat
    return totals


def _last(product: Tensor) -> Tensor:
    """A linear layer reads features last, [N, ..., features]."""
    return product.flatten(1, -2).sum(1) if product.ndim > 2 else product


def _gates(group: Group, products: dict[nn.Module, Tensor], samples: int) -> Tensor:
    readers = [member for member in _readers(group) if member.module in products]
    if not readers:
        fix = "name the layer in keep, or use method = 'magnitude'"
        raise ModelError("no layer reads these channels", where=group.name, fix=fix)
    total = torch.zeros(samples, group.width)
    for member in readers:
        total += sum_by_root(member, products[member.module][:, torch.tensor(member.channels)], group.width)
    return total
