# SPDX-License-Identifier: Apache-2.0
"""Make a narrow network compute what a wide one computes, layer after layer, by least squares: no training.

Theory of operation: each layer's wanted output is the wide network's, in the channels that were kept, averaged down
where the narrow network's map is smaller. The narrow network then runs once. Just before a layer computes, it gets the
weights that best turn what really enters it (from layers that were already mended) into what is wanted. So errors of
earlier layers are corrected by later ones, and do not add up.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.prune.batch_norm import reestimate

__all__ = ["least_squares", "reconstruct"]

_MOST_ELEMENTS: Final = 16_000_000  # of one matrix of inputs: 128 MB in double precision
_MOST_WANTED: Final = 200_000_000  # numbers in all wanted outputs together: 800 MB


@torch.no_grad()
def least_squares(layer: nn.Conv2d | nn.Linear, x: Tensor, wanted: Tensor, *, ridge: float = 1e-3) -> None:
    """Give a layer, in place, the weights W that minimise Σ‖wanted - W·x‖² + λ‖W - W₀‖², W₀ the present ones.

    λ is ``ridge`` times the mean square of the inputs: a direction that the inputs hardly show keeps its weight.

    Args:
        layer: A linear layer or a convolution, grouped or not; a bias is fitted with the weights.
        x: What enters it, [N,C,H,W] or [N,…,F].
        wanted: What shall come out, in the shape that does.
        ridge: Relative strength of the pull to W₀.

    Example:
        >>> layer, x = nn.Linear(2, 1), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
        >>> least_squares(layer, x, 3 * x[:, :1] - x[:, 1:] + 2, ridge=1e-9)
        >>> [round(value, 3) for value in (*layer.weight[0].tolist(), layer.bias.item())]
        [3.0, -1.0, 2.0]
    """
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    old = layer.weight.double().view(groups, layer.weight.shape[0] // groups, -1).transpose(1, 2)
    if layer.bias is not None:
        old = torch.cat([old, layer.bias.double().view(groups, 1, -1)], 1)
    gram, moment = torch.zeros(groups, old.shape[1], old.shape[1]).double(), torch.zeros_like(old)
    rows = max(1, _MOST_ELEMENTS // max(1, _unfolded(layer, x[:1]).numel()))
    for part, target in zip(torch.split(x, rows), torch.split(wanted, rows), strict=True):
        inputs = _unfolded(layer, part)
        outputs = target.double().flatten(0, -2)[None] if isinstance(layer, nn.Linear) else _columns(target, groups)
        gram += inputs.transpose(1, 2) @ inputs
        moment += inputs.transpose(1, 2) @ (outputs - inputs @ old)
    pull = ridge * gram.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-30)
    gram += pull[:, None, None] * torch.eye(gram.shape[1])
    new = old + torch.linalg.solve(gram, moment)
    if layer.bias is not None:
        layer.bias.copy_(new[:, -1].flatten())
        new = new[:, :-1]
    layer.weight.copy_(new.transpose(1, 2).reshape(layer.weight.shape))


def _unfolded(layer: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    """Return the inputs of every output position, [groups, positions, values], with a one for the bias."""
    if isinstance(layer, nn.Linear):
        rows = x.double().flatten(0, -2)[None]
    else:
        size, padding, stride, dilation = layer.kernel_size, layer.padding, layer.stride, layer.dilation
        assert not isinstance(padding, str)  # ``_can_be_refitted`` leaves those out
        rows = _columns(F.unfold(x.double(), size, dilation, padding, stride), layer.groups)
    return rows if layer.bias is None else torch.cat([rows, torch.ones_like(rows[..., :1])], 2)


def _columns(x: Tensor, groups: int) -> Tensor:
    """[N, C, …] → [groups, N · positions, C / groups]."""
    flat = x.double().flatten(2)
    return flat.view(len(x), groups, -1, flat.shape[2]).permute(1, 0, 3, 2).flatten(1, 2)


def _can_be_refitted(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return isinstance(module, nn.Linear)


@torch.no_grad()
def reconstruct(student: nn.Module, teacher: nn.Module, kept: Mapping[str, tuple[int, ...]], x: Tensor) -> None:
    """Refit every convolution and linear layer of the student, in place, then its normalisation statistics.

    Args:
        student: Its layers are named as the teacher's; ends in eval mode.
        teacher: Not changed.
        kept: Layer → channels of the teacher's output that the student has, in order; a layer left out has all.
        x: Some hundred inputs, float32 [N,C,H,W]; fewer are used where the maps are large.

    Reference:
        He, Zhang & Sun 2017, "Channel pruning for accelerating very deep neural networks", equation 4 (feature-map
        reconstruction), with the inputs that the narrow network really sees as in their section 3.2 (whole model).
    """
    layers = {name: module for name, module in student.named_modules() if _can_be_refitted(module)}
    sizes: dict[str, Tensor] = {}
    _run(student.eval(), x[:1], {name: _note(sizes, name) for name in layers})
    x = x[: max(2, _MOST_WANTED // sum(size.numel() for size in sizes.values()))]
    wanted: dict[str, Tensor] = {}
    for part in torch.split(x, 128):
        found: dict[str, Tensor] = {}
        _run(teacher.eval(), part, {name: _note(found, name, kept.get(name), sizes[name]) for name in sizes})
        wanted = {n: torch.cat([wanted[n], found[n]]) if n in wanted else found[n] for n in sizes}
    for module in student.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.train()  # what it passes on must be centred by what enters it now
    handles = [layers[name].register_forward_pre_hook(_refitter(target)) for name, target in wanted.items()]
    try:
        student(x)
    finally:
        for handle in handles:
            handle.remove()
    reestimate(student, x)


def _run(model: nn.Module, x: Tensor, hooks: Mapping[str, Callable[..., None]]) -> None:
    handles = [model.get_submodule(name).register_forward_hook(hook) for name, hook in hooks.items()]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()


def _note(
    found: dict[str, Tensor], name: str, channels: tuple[int, ...] | None = None, like: Tensor | None = None
) -> Callable[..., None]:
    """Return a hook that notes a layer's output: these channels of it, no larger than another map."""

    def note(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        axis = 1 if output.ndim == 4 else -1
        if channels is not None:
            output = output.index_select(axis, torch.tensor(channels))
        if like is not None and output.ndim == 4 and output.shape[2:] != like.shape[2:]:
            output = F.adaptive_avg_pool2d(output, (like.shape[2], like.shape[3]))
        found.setdefault(name, output)  # a layer that is called twice is fitted to its first call

    return note


def _refitter(wanted: Tensor) -> Callable[..., None]:
    is_done: list[bool] = []

    def refit(module: Any, inputs: tuple[Tensor, ...]) -> None:
        if not is_done:
            least_squares(module, inputs[0], wanted)
            is_done.append(True)

    return refit
