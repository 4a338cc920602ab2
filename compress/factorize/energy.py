# SPDX-License-Identifier: Apache-2.0
"""What counts as energy when a weight loses rank: its own squares, its outputs', or what those do to the loss.

Theory of operation: to second order, an error E of a layer's weight costs ½ tr(G E A Eᵀ) of the loss, with A the second
moment of the layer's inputs and G that of the loss' gradients at its outputs (Kronecker-factored Fisher). With the
symmetric roots of both that is the plain squared norm of G^½ E A^½. So the weight is turned by the roots, decomposed as
usual, and the outer factors are turned back. With G = 1 the energy is that of the outputs, with A = 1 too that of the
weight. Kernel taps count as independent: only channels are weighed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Roots", "moments", "roots_of"]

DAMPING = 1e-3
"""Added to each moment's diagonal, as a share of its mean: what was never seen may still matter a little."""


@dataclass(frozen=True)
class Roots:
    """Symmetric square roots of the moments of a layer, float64, and their inverses; None stands for the identity.

    Attributes:
        inputs, inputs_back: [in, in].
        outputs, outputs_back: [out, out].
    """

    inputs: Tensor | None = None
    inputs_back: Tensor | None = None
    outputs: Tensor | None = None
    outputs_back: Tensor | None = None

    def turn(self, weight: Tensor) -> Tensor:
        """Return the weight [out, in, …] whose squares are the energy, float64."""
        turned = weight.detach().double()
        if self.inputs is not None:
            turned = torch.tensordot(turned, self.inputs, dims=([1], [0])).movedim(-1, 1)
        if self.outputs is not None:
            turned = torch.tensordot(self.outputs, turned, dims=1)
        return turned

    def back(self, factors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the factors of the weight itself from those of the turned one."""
        made = list(factors)
        if self.inputs_back is not None:
            made[0] = torch.tensordot(made[0], self.inputs_back, dims=([1], [0])).movedim(-1, 1)
        if self.outputs_back is not None:
            made[-1] = torch.tensordot(self.outputs_back, made[-1], dims=1)
        return tuple(made)


def roots_of(moment: Tensor) -> tuple[Tensor, Tensor]:
    """Return the symmetric square root of a damped second moment, and its inverse; float64 [n, n].

    Example:
        >>> root, back = roots_of(torch.diag(torch.tensor([4.0, 9.0])))
        >>> root.diagonal().round(decimals=2).tolist(), torch.allclose(root @ back, torch.eye(2, dtype=torch.float64))
        ([2.0, 3.0], True)
    """
    values, vectors = torch.linalg.eigh(moment.double())
    values = values.clamp_min(0.0)
    values = values + max(DAMPING * float(values.mean()), 1e-30)
    root = values.sqrt()
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T


def moments(
    model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor, *, gradients: bool, batch: int = 32, seed: int = 0
) -> dict[str, Roots]:
    """Return the roots of every layer on samples; memory does not grow with their number.

    Args:
        model: Evaluated in eval mode; unchanged.
        layers: Linear layers and ungrouped convolutions by name.
        x: Inputs, float32 [N,C,H,W]; no labels are needed: answers are drawn from what the model itself believes.
        gradients: Also weigh outputs by the loss' gradients.
        batch: Samples of one pass.
        seed: Of the drawn answers.

    Reference:
        Inputs: Wang et al. 2024, "SVD-LLM", section 3.1. Both: Martens & Grosse 2015, "Optimizing neural networks with
        Kronecker-factored approximate curvature", section 3; Grosse & Martens 2016 for convolutions.
    """
    sums_in = dict.fromkeys(layers, torch.zeros(()))
    sums_out = dict.fromkeys(layers, torch.zeros(()))
    hooks = [_listen(name, module, sums_in, sums_out, gradients=gradients) for name, module in layers.items()]
    generator = torch.Generator().manual_seed(seed)
    was_training = model.training
    model.eval()
    try:
        with torch.set_grad_enabled(gradients):
            for part in torch.split(x, batch):
                logits = model(part)
                if gradients:
                    _draw_and_descend(model, logits, generator)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return {name: _roots(sums_in[name] / len(x), sums_out[name] / len(x), gradients=gradients) for name in layers}


def _draw_and_descend(model: nn.Module, logits: Tensor, generator: torch.Generator) -> None:
    """Run the gradients of -log p(answer) for answers drawn from the model's own distribution.

    [N, classes] are logits; an output of another shape is an image or the like, whose answers are normal around it.
    """
    if logits.dim() == 2:
        answers = torch.multinomial(logits.detach().softmax(1), 1, generator=generator).squeeze(1)
        F.cross_entropy(logits, answers, reduction="sum").backward()  # type: ignore[no-untyped-call]
    else:
        noise = torch.randn(logits.shape, generator=generator)
        logits.backward(noise.to(logits))  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=True)


def _listen(
    name: str, module: nn.Module, sums_in: dict[str, Tensor], sums_out: dict[str, Tensor], *, gradients: bool
) -> torch.utils.hooks.RemovableHandle:
    channels_last = isinstance(module, nn.Linear)

    def add(sums: dict[str, Tensor], values: Tensor, *, mean: bool) -> None:
        rows = values.detach()
        rows = rows.flatten(0, -2) if channels_last else rows.movedim(1, -1).flatten(0, -2)
        product = (rows.T @ rows).double()  # of one batch in float32, whose copies are half as large; summed in float64
        sums[name] = sums[name] + (product / (len(rows) // len(values)) if mean else product)

    def hear(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        add(sums_in, inputs[0], mean=True)
        if gradients and output.requires_grad:
            # The sum over places: with the mean of the inputs, that is the Fisher of a convolution.
            output.register_hook(lambda gradient: add(sums_out, gradient, mean=False))  # type: ignore[no-untyped-call]

    return module.register_forward_hook(hear)


def _roots(inputs: Tensor, outputs: Tensor, *, gradients: bool) -> Roots:
    root_in = roots_of(inputs) if inputs.dim() else (None, None)
    root_out = roots_of(outputs) if gradients and outputs.dim() else (None, None)
    return Roots(*root_in, *root_out)
