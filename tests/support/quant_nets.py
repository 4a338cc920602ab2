# SPDX-License-Identifier: Apache-2.0
"""Small networks with every operator that a plan can hold, settled on data so that their ranges are real."""

import torch
from torch import nn
from torch.nn import functional as F


def conv(inputs, outputs, size=3, stride=1, groups=1, act=nn.ReLU6):
    layers = [nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Inverted(nn.Module):
    """MobileNetV2's block: expand, depthwise, project, and a residual addition where sizes allow."""

    def __init__(self, inputs, outputs, stride, expand):
        super().__init__()
        hidden = inputs * expand
        middle = conv(hidden, hidden, stride=stride, groups=hidden)
        self.body = nn.Sequential(conv(inputs, hidden, 1), middle, conv(hidden, outputs, 1, act=None))
        self.has_sum = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.body(x) if self.has_sum else self.body(x)


class Basic(nn.Module):
    """ResNet's block: two convolutions, a projected shortcut, a ReLU after the addition."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(conv(inputs, outputs, stride=stride, act=nn.ReLU), conv(outputs, outputs, act=None))
        self.short = nn.Identity() if stride == 1 else conv(inputs, outputs, 1, stride, act=None)

    def forward(self, x):
        return torch.relu(self.body(x) + self.short(x))


class Net(nn.Module):
    """Blocks, a global pool, one linear layer."""

    def __init__(self, *blocks, features, classes=10):
        super().__init__()
        self.blocks, self.pool = nn.Sequential(*blocks), nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(features, classes)

    def forward(self, x):
        return self.head(torch.flatten(self.pool(self.blocks(x)), 1))


def mobile():
    """MobileNetV2-like: depthwise, three residual additions in a chain, stride 2."""
    blocks = [Inverted(12, 16, 2, 3), *(Inverted(16, 16, 1, 3) for _ in range(3)), Inverted(16, 24, 2, 3)]
    return Net(conv(3, 12, stride=2), *blocks, features=24)


def residual():
    """ResNet-8-like: plain convolutions, projected shortcuts, a max pool with padding."""
    blocks = [nn.MaxPool2d(3, 2, 1), Basic(12, 12, 1), Basic(12, 20, 2), Basic(20, 20, 1)]
    return Net(conv(3, 12, 5, act=nn.ReLU), *blocks, features=20)


def separable():
    """DS-CNN-like: depthwise-separable, 5×5, average pool."""
    blocks = [conv(16, 16, groups=16), conv(16, 24, 1), nn.AvgPool2d(2), conv(24, 24, 5, 2, 24), conv(24, 32, 1)]
    return Net(conv(3, 16, stride=2, act=nn.ReLU), *blocks, features=32)


def images(count, seed, size=32):
    """Smooth coloured noise of changing brightness, float32 [count, 3, size, size], 0 to about 2."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(count, 3, size, size, generator=generator)
    return F.avg_pool2d(rough, 5, 1, 2) * torch.rand(count, 3, 1, 1, generator=generator) * 2


def settled(build, seed=0, size=32):
    """Return a network in eval mode with random factors and BatchNorm statistics of its own data."""
    torch.manual_seed(seed)
    net = build()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
    with torch.no_grad():
        for i in range(12):
            net(images(16, 100 + i, size))
    return net.eval()
