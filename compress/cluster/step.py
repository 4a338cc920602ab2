# SPDX-License-Identifier: Apache-2.0
"""The recipe's ``cluster`` step: each layer's weights share a few values, which are then fine-tuned.

Theory of operation: a shared value moves by the sum of its members' gradients. Each member is given that sum over
√members as its own gradient, so that the norm over all members, which clipping looks at, is the norm over the shared
values. Members start equal and see equal gradients, so the optimizer keeps them equal; the mean is written back after
each step, against the last bit that vector and scalar code may round differently.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compress.cluster.kmeans import centroids
from compress.fine_tune import fine_tune
from compress.memory import zipped_kb
from compress.prune.batch_norm import reestimate
from compress.recipe_table import nearest
from compress.sources import Tensors
from compress.sparsify.masks import weights_of
from compress.steps.cluster import Cluster
from compress.trainer import Augment, EpochLog, Progress
from edge_contract.errors import ModelError, RecipeError

__all__ = ["Sharing", "cluster", "described", "share", "values_of"]

SHARED = "shared values shrink the packed download; ONNX Runtime and LiteRT compute no faster for them"


@dataclass(frozen=True, eq=False)
class Sharing:
    """Which weights of a layer share a value.

    Attributes:
        owner: Cluster of each weight, int64 [weights]; 0 is the cluster of zeros.
        count: Members of each cluster, [clusters].
    """

    owner: Tensor
    count: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of each cluster, float64 [clusters]; exactly 0 for the zeros."""
        total = self._sum(values) / self._members(values)
        total[0] = 0.0
        return total

    def _sum(self, values: Tensor) -> Tensor:
        total = torch.zeros(len(self.count), dtype=torch.float64, device=values.device)
        return total.index_add_(0, self.owner.to(values.device), values.flatten().double())

    def _members(self, values: Tensor) -> Tensor:
        return self.count.clamp_min(1).to(values.device)

    def gradient(self, gradient: Tensor) -> Tensor:
        """Return the gradient of each weight's shared value, over √members; zeros stay."""
        total = self._sum(gradient) / self._members(gradient).sqrt()
        total[0] = 0.0
        return total[self.owner.to(gradient.device)].reshape(gradient.shape).to(gradient.dtype)

    @torch.no_grad()
    def write(self, weight: Tensor) -> None:
        """Give every weight the mean of its cluster, in place."""
        weight.copy_(self.mean(weight)[self.owner.to(weight.device)].reshape(weight.shape))


def share(weight: Tensor, clusters: int) -> Sharing:
    """Give a weight at most ``clusters`` values beside zero, in place, by optimal k-means.

    Example:
        >>> weight = torch.tensor([0.0, 1.0, 1.2, -3.0])
        >>> _ = share(weight, 2)
        >>> [round(value, 3) for value in weight.tolist()]
        [0.0, 1.1, 1.1, -3.0]
    """
    flat = weight.detach().flatten().double().numpy()
    alive = flat != 0
    owner = np.zeros(len(flat), np.int64)
    if alive.any():
        found = centroids(flat[alive], clusters)
        owner[alive] = 1 + np.searchsorted((found[1:] + found[:-1]) / 2, flat[alive])
    owners = torch.from_numpy(owner)
    sharing = Sharing(owners, torch.bincount(owners, minlength=1).double())
    sharing.write(weight)
    return sharing


def cluster(
    step: Cluster,
    model: nn.Module,
    data: Tensors,
    *,
    seed: int,
    teacher: nn.Module | None = None,
    augment: Augment | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> tuple[EpochLog, ...]:
    """Let weights share values in place, fine-tune the values, and return the log of the epochs.

    Who shares with whom is decided on the model that enters, so a resumed training decides the same again.

    Args:
        step: Clusters, training.
        model: Changed in place.
        data: The training split.
        seed, teacher, augment, checkpoint, progress: As for ``train``.

    Raises:
        RecipeError: ``keep`` names a layer that is not there.
        ModelError: No layer has enough weights.
    """
    sharings = {name: share(weight.data, step.clusters) for name, weight in _looked_at(step, model).items()}
    reestimate(model, data.x[: step.samples])

    def after_step(trained: nn.Module, number: int, steps: int) -> None:
        _write(trained, sharings)

    with _summed_gradients(model, sharings):
        logs = fine_tune(
            step,
            model,
            data,
            seed=seed,
            teacher=teacher,
            augment=augment,
            checkpoint=checkpoint,
            progress=progress,
            after_step=after_step,
        )
    _write(model, sharings)  # averaged weights (EMA) may differ in the last bit
    return logs


def _looked_at(step: Cluster, model: nn.Module) -> dict[str, Tensor]:
    every = dict(model.named_modules())
    names = [name for name, module in every.items() if isinstance(getattr(module, "weight", None), Tensor)]
    for name in step.keep:
        if name not in every:
            raise RecipeError(f"key 'keep': no layer {name!r}", where="step cluster", fix=nearest(name, names))
    found = {n: w for n, w in weights_of(model, step.keep).items() if w.numel() >= step.least}
    if not found:
        what = f"no linear layer or convolution has {step.least} weights"
        raise ModelError(what, where="cluster", fix="lower least, or leave the step out")
    for name, weight in found.items():
        if not bool(torch.isfinite(weight).all()):
            raise ModelError("weights hold NaN or an infinity", where=name, fix="train the model again")
    return found


def _write(model: nn.Module, sharings: Mapping[str, Sharing]) -> None:
    weights = weights_of(model)
    for name, sharing in sharings.items():
        sharing.write(weights[name].data)


@contextmanager
def _summed_gradients(model: nn.Module, sharings: Mapping[str, Sharing]) -> Iterator[None]:
    weights = weights_of(model)
    hooks = [
        weights[name].register_hook(sharing.gradient)  # type: ignore[no-untyped-call]
        for name, sharing in sharings.items()
        if weights[name].requires_grad
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def values_of(model: nn.Module, keep: Sequence[str] = ()) -> dict[str, int]:
    """Return how many different values each layer's weights take.

    Example:
        >>> values_of(nn.Sequential(nn.Linear(3, 2, bias=False)).apply(lambda m: nn.init.ones_(m.weight)
        ...     if isinstance(m, nn.Linear) else None))
        {'0': 1}
    """
    return {name.removesuffix(".weight"): len(torch.unique(w.detach())) for name, w in weights_of(model, keep).items()}


def described(model: nn.Module) -> str:
    """Return one line for the report: the packed size, and what sharing does not do."""
    counts = values_of(model)
    return (
        f"{min(counts.values())} to {max(counts.values())} values a layer, packed {zipped_kb(model):.1f} KB; {SHARED}"
    )
