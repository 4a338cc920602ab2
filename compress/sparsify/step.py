# SPDX-License-Identifier: Apache-2.0
"""The recipe's ``sparsify`` step: zeros grow along the cubic schedule while the model is fine-tuned, and are held.

Theory of operation: a zero once made stays, and the masks are nowhere but in the weights themselves. A resumed run
reads them off the weights that it restored, before its first step. Averaged weights (EMA) blur zeros; the masks are
therefore chosen once more on the weights that come out at the end.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.fine_tune import fine_tune
from compress.memory import zipped_kb
from compress.prune.batch_norm import reestimate
from compress.recipe_table import nearest
from compress.sources import Tensors
from compress.sparsify.masks import hold, lamp_scores, n_of_m, smallest, sparsity, weights_of, zeros_of
from compress.sparsify.schedule import Ramp
from compress.steps.sparsify import Sparsify
from compress.trainer import Augment, EpochLog, Progress
from edge_contract.errors import ModelError, RecipeError

__all__ = ["Growth", "chosen_masks", "described", "looked_at", "sparsify"]

ZEROS = "zeros shrink the packed download; ONNX Runtime and LiteRT compute no faster for them"
"""What a report says beside the zeros."""


def looked_at(step: Sparsify, model: nn.Module) -> dict[str, Tensor]:
    """Return the weights that the step makes sparse, by name.

    Raises:
        RecipeError: ``keep`` names a layer that is not there.
        ModelError: No layer is left.
    """
    names = [name.removesuffix(".weight") for name in weights_of(model)]
    for name in step.keep:
        if name not in dict(model.named_modules()):
            raise RecipeError(f"key 'keep': no layer {name!r}", where="step sparsify", fix=nearest(name, names))
    found = weights_of(model, step.keep)
    if step.method == "n:m":
        found = {name: weight for name, weight in found.items() if weight.shape[1] % step.pattern[1] == 0}
    if not found:
        what = "no linear layer or convolution can become sparse"
        raise ModelError(what, where="sparsify", fix="leave the step out, or keep fewer layers")
    return found


def chosen_masks(step: Sparsify, weights: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return the masks at a share of the way.

    Args:
        step: Method, scope, pattern.
        weights: By name.
        share: Share of zeros; for ``n:m`` the share of blocks that have their pattern, those first that lose least.
    """
    if step.method == "n:m":
        return _patterned(weights, *step.pattern, share)
    if step.scope == "layer" and step.method == "magnitude":
        return {name: smallest({name: weight.detach().abs()}, share)[name] for name, weight in weights.items()}
    score = lamp_scores if step.method == "lamp" else torch.abs
    return smallest({name: score(weight.detach()) for name, weight in weights.items()}, share)


def _patterned(weights: Mapping[str, Tensor], kept: int, block: int, share: float) -> dict[str, Tensor]:
    masks = {name: n_of_m(weight, kept, block) for name, weight in weights.items()}
    if share >= 1:
        return {name: mask for name, (mask, _) in masks.items()}
    # Layers are of different sizes: a block's loss counts against the mean square of its layer.
    means = {name: max(float(weight.detach().square().mean()), 1e-30) for name, weight in weights.items()}
    relative = {name: lost / means[name] for name, (_, lost) in masks.items()}
    ordered = torch.cat([lost.flatten() for lost in relative.values()]).sort().values
    limit = float(ordered[round(share * len(ordered)) - 1]) if round(share * len(ordered)) else -1.0
    return {name: mask | (relative[name] > limit) for name, (mask, _) in masks.items()}


class Growth:
    """Zeros on their way.

    Args:
        step: What to reach.
        model: As it enters; the zeros that it has are held too, and count.
    """

    def __init__(self, step: Sparsify, model: nn.Module) -> None:
        self.step, self.names = step, tuple(looked_at(step, model))
        self.final = 1.0 if step.method == "n:m" else step.sparsity
        initial = 0.0 if step.method == "n:m" else min(sparsity(self._weights(model)), self.final)
        self.ramp = Ramp(initial, self.final, step.ramp, step.every)
        self.masks = zeros_of(weights_of(model))

    def _weights(self, model: nn.Module) -> dict[str, Tensor]:
        every = weights_of(model)
        return {name: every[name] for name in self.names}

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Read the zeros that a checkpoint has brought back, before the first step moves them."""

        def read(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.masks = zeros_of(weights_of(module))
            handle.remove()

        handle = model.register_forward_pre_hook(read)
        try:
            yield
        finally:
            handle.remove()

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Hold the zeros after an optimizer step, and grow them where that is due."""
        hold(weights_of(model), self.masks)
        share = self.ramp.at(step, steps)
        if share is not None:
            self._grow(model, share)

    def finish(self, model: nn.Module) -> None:
        """Reach the final sparsity on the weights as they are."""
        self._grow(model, self.final)

    def _grow(self, model: nn.Module, share: float) -> None:
        weights = self._weights(model)
        chosen = chosen_masks(self.step, weights, share)
        self.masks |= {name: mask & (weights[name].detach() != 0) for name, mask in chosen.items()}
        hold(weights, {name: self.masks[name] for name in chosen})


def sparsify(
    step: Sparsify,
    model: nn.Module,
    data: Tensors,
    *,
    seed: int,
    teacher: nn.Module | None = None,
    augment: Augment | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> tuple[EpochLog, ...]:
    """Make a model sparse in place while it is fine-tuned; return the log of its epochs.

    Args:
        step: Method, sparsity, ramp, training; without epochs the zeros come at once.
        model: Changed in place; has exactly the zeros asked for at the end.
        data: The training split.
        seed, teacher, augment, checkpoint, progress: As for ``train``.

    Raises:
        RecipeError: ``keep`` names a layer that is not there.
        ModelError: No layer can become sparse.
    """
    growth = Growth(step, model)
    with growth.watching(model):
        logs = fine_tune(
            step,
            model,
            data,
            seed=seed,
            teacher=teacher,
            augment=augment,
            checkpoint=checkpoint,
            progress=progress,
            after_step=growth.after_step,
        )
    growth.finish(model)
    if not step.training.epochs:
        reestimate(model, data.x[: step.samples])
    return logs


def described(model: nn.Module) -> str:
    """Return one line for the report: how many zeros, what the packed weights weigh, and what zeros do not do.

    Example:
        >>> described(nn.Linear(2, 2, bias=False).requires_grad_(False))[:33]
        '0.0 % of 4 weights are zero, pack'
    """
    weights = weights_of(model)
    count = sum(weight.numel() for weight in weights.values())
    return f"{100 * sparsity(weights):.1f} % of {count} weights are zero, packed {zipped_kb(model):.1f} KB; {ZEROS}"
