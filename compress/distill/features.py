# SPDX-License-Identifier: Apache-2.0
"""Feature distillation: the student's features, seen through 1×1 adapters, follow the teacher's."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.recipe_table import nearest
from edge_contract.errors import ModelError

__all__ = ["Adapters", "Tap", "as_map", "feature_loss", "features"]


class Tap:
    """Keeps what comes out of named layers during a forward pass; a context manager that removes its hooks.

    Args:
        model: Looked at.
        layers: Names of layers whose outputs are kept in ``outputs``.
        into: Name of a layer whose input is kept in ``inputs``; empty for none.

    Raises:
        ModelError: No such layer; the nearest name is offered.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
        >>> with Tap(net, ["0"]) as tap:
        ...     _ = net(torch.zeros(1, 1, 4, 4))
        ...     tap.outputs["0"].shape
        torch.Size([1, 2, 4, 4])
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], into: str = "") -> None:
        self.outputs: dict[str, Tensor] = {}
        self.inputs: dict[str, Tensor] = {}
        known = dict(model.named_modules())
        for name in layers:
            if name not in known or not name:
                names = [one for one in known if one]
                raise ModelError("no such layer", where=name or "''", fix=nearest(name, names))
        self._hooks = [known[name].register_forward_hook(self._keeper(name)) for name in layers]
        if into:
            self._hooks.append(known[into].register_forward_pre_hook(self._catcher(into)))

    def _keeper(self, name: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self.outputs[name] = output

        return keep

    def _catcher(self, name: str) -> Any:
        def catch(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.inputs[name] = inputs[0]

        return catch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()


class Adapters(nn.Module):
    """One 1×1 convolution for each pair of layers, from the student's channels to the teacher's."""

    def __init__(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        super().__init__()
        pairs = zip(student, teacher, strict=True)
        self.convs = nn.ModuleList(nn.Conv2d(inputs, outputs, 1) for inputs, outputs in pairs)


def as_map(features: Tensor) -> Tensor:
    """Return features of a series, [N,C,L], as a map of height 1; a map comes back as it is.

    Example:
        >>> as_map(torch.zeros(2, 8, 30)).shape
        torch.Size([2, 8, 1, 30])
    """
    return features[:, :, None] if features.ndim == 3 else features


def _is_series(layer: nn.Module) -> bool:
    """Whether three axes are [N,C,L]: behind a 1-D convolution; tokens [N,T,C] have none."""
    return any(isinstance(module, (nn.Conv1d, nn.BatchNorm1d)) for module in layer.modules())


def feature_loss(adapter: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    """Return ½ · mean((teacher - adapter(student))²).

    The paper sums over the feature map; the mean makes the weight independent of its size. A teacher's map of
    another size is averaged down to the student's.

    Args:
        adapter: Maps the student's channels to the teacher's.
        student: Features, [N,Cs,H,W].
        teacher: Features, [N,Ct,H',W'].

    Example:
        >>> float(feature_loss(nn.Identity(), torch.zeros(1, 1, 2, 2), torch.full((1, 1, 4, 4), 3.0)))
        4.5

    Reference:
        Romero et al. 2015, "FitNets", equation 3.
    """
    answer = adapter(student)
    if teacher.shape[2:] != answer.shape[2:]:
        teacher = F.adaptive_avg_pool2d(teacher, (answer.shape[2], answer.shape[3]))
    return 0.5 * F.mse_loss(answer, teacher)


def features(
    student: nn.Module, teacher: nn.Module, layers: Sequence[tuple[str, str]], example: Tensor
) -> tuple[Adapters, list[tuple[str, str]]]:
    """Return fresh adapters that fit the named layers.

    Args:
        student, teacher: The networks.
        layers: Pairs (layer of the student, layer of the teacher).
        example: One input, float32 [1,C,H,W].

    Raises:
        ModelError: A layer that is not there (nearest name offered) or whose output is no feature map.
    """
    widths: list[list[int]] = []
    for model, names in ((student, [a for a, _ in layers]), (teacher, [b for _, b in layers])):
        with Tap(model, names) as tap, torch.no_grad():
            model.eval()(example)
            for name in names:
                found = tap.outputs.get(name)
                if not isinstance(found, Tensor) or found.ndim != (3 if _is_series(model.get_submodule(name)) else 4):
                    raise ModelError("its output is no feature map [N,C,H,W]", where=name, fix="name a convolution")
            widths.append([tap.outputs[name].shape[1] for name in names])
    return Adapters(*widths), list(layers)
