# SPDX-License-Identifier: Apache-2.0
"""The networks of the story: a teacher of plain convolutions and depthwise-separable students.

All end in global average pooling and one linear layer, whose input is the embedding that drift watches.
"""

from collections import OrderedDict

from torch import nn

__all__ = ["small", "student", "teacher"]


def _conv(inputs: int, outputs: int, *, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(outputs), act=nn.ReLU()))


def _separable(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    depthwise = _conv(inputs, inputs, stride=stride, groups=inputs)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=_conv(inputs, outputs, size=1)))


def _with_head(features: int, **blocks: nn.Module) -> nn.Sequential:
    head = OrderedDict[str, nn.Module](blocks)
    head.update(pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=nn.Linear(features, 10))
    return nn.Sequential(head)


def teacher() -> nn.Module:
    """Return the untrained teacher: 37 k parameters, 4.1 M multiply-accumulates on [N,1,28,28]."""
    return _with_head(
        64,
        block1=_conv(1, 16),
        block2=_conv(16, 32, stride=2),
        block3=_conv(32, 36),
        block4=_conv(36, 64, stride=2),
    )


def student() -> nn.Module:
    """Return the untrained student: 11 k parameters on [N,1,28,28], about 6 k once its recipe has pruned it."""
    return _separable_net(16, 32, 64, 96)


def small() -> nn.Module:
    """Return an untrained network of the size that pruning leaves of the student, for comparison."""
    return _separable_net(12, 24, 48, 64)


def _separable_net(stem: int, first: int, second: int, third: int) -> nn.Sequential:
    return _with_head(
        third,
        stem=_conv(1, stem, stride=2),
        block1=_separable(stem, first),
        block2=_separable(first, second, stride=2),
        block3=_separable(second, third),
    )
