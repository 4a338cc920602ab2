# SPDX-License-Identifier: Apache-2.0
"""A MobileNetV2 for 28×28 grey images, trained on Fashion-MNIST: what the recipe starts from, and its teacher."""

import torch
from torch import Tensor, nn

__all__ = ["network"]


def _conv(inputs: int, outputs: int, size: int = 3, *, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([nn.ReLU6()] if act else []))


class _Inverted(nn.Module):
    """Inverted residual (Sandler et al. 2018)."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int) -> None:
        super().__init__()
        widen = [] if hidden == inputs else [_conv(inputs, hidden, 1)]
        depthwise = _conv(hidden, hidden, stride=stride, groups=hidden)
        self.body = nn.Sequential(*widen, depthwise, _conv(hidden, outputs, 1, act=False))
        self.has_sum = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.has_sum else y


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        rows = [(16, 16, 16, 1), (16, 64, 24, 2), (24, 96, 24, 1), (24, 96, 40, 2), *[(40, 160, 40, 1)] * 3]
        self.blocks = nn.Sequential(_conv(1, 16), *(_Inverted(*row) for row in rows), _conv(40, 160, 1))
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(160, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.flatten(self.pool(self.blocks(x)), 1))
        return logits


def network() -> nn.Module:
    """Return the untrained network: 71 k parameters, 5.8 M multiply-accumulates on [N,1,28,28]."""
    return _Network()
