# SPDX-License-Identifier: Apache-2.0
"""The networks, both of plain convolutions: a teacher that knows both cameras, and a student of a sixth of its size."""

from collections import OrderedDict

from torch import nn

__all__ = ["student", "teacher"]


def _conv(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(outputs), act=nn.ReLU()))


def student() -> nn.Module:
    """Return the untrained student: 11 k parameters, 0.5 M multiply-accumulates on [N,1,28,28]."""
    return nn.Sequential(
        OrderedDict(
            block1=_conv(1, 12, stride=2),
            block2=_conv(12, 24, stride=2),
            block3=_conv(24, 36),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(36, 10),
        )
    )


def teacher() -> nn.Module:
    """Return the untrained teacher: 65 k parameters, 4.0 M multiply-accumulates on [N,1,28,28]."""
    return nn.Sequential(
        OrderedDict(
            block1=_conv(1, 16),
            block2=_conv(16, 32, stride=2),
            block3=_conv(32, 48, stride=2),
            block4=_conv(48, 64),
            block5=_conv(64, 32),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(32, 10),
        )
    )
