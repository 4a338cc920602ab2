# SPDX-License-Identifier: Apache-2.0
"""A 1-D CNN for two seconds of a smartwatch: six channels of movement to seven exercises."""

from collections import OrderedDict

from torch import nn

__all__ = ["network"]


def _conv(inputs: int, outputs: int, *, size: int = 5, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv1d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm1d(outputs), act=nn.ReLU()))


def network() -> nn.Module:
    """Return the untrained network: 51 k parameters, 1.2 M multiply-accumulates on [N,6,100]."""
    return nn.Sequential(
        OrderedDict(
            block1=_conv(6, 32, size=7),
            block2=_conv(32, 48, stride=2),
            block3=_conv(48, 64, stride=2),
            block4=_conv(64, 80, stride=2),
            pool=nn.AdaptiveAvgPool1d(1),
            flat=nn.Flatten(),
            drop=nn.Dropout(0.3),
            head=nn.Linear(80, 7),
        )
    )
