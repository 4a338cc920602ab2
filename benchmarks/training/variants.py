# SPDX-License-Identifier: Apache-2.0
"""Fourteen families of small networks in several widths, and pruned: what a latency predictor learns from.

Latency does not ask what the weights are, so they are random. Each family is a design of its own (what it is made of,
how large its maps are); its members differ in width, and one was pruned to widths that no table of a paper has.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from compress.prune.step import cut
from compress.quantize.plan import QuantizationPlan
from compress.quantize.step import quantize
from compress.sources import Tensors
from compress.steps.prune import Prune
from tests.zoo.models import Basic, Classifier, Inverted, SqueezeExcite, conv

__all__ = ["FAMILIES", "Family", "Variant", "variants"]

CALIBRATION: Final = 64
WIDTHS: Final = (0.5, 0.7, 1.0, 1.4, 2.0)
PRUNED: Final = {"target": {"macs": 0.55}, "method": "magnitude", "round_to": 2}


@dataclass(frozen=True)
class Family:
    """A design: its network at a width, and its input [C, H, W] or [C, T]."""

    build: Callable[[float], nn.Module]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Variant:
    """One member: width 2 has twice the design's channels; ``pruned`` is width 1.0 without some channels."""

    family: str
    width: float
    is_pruned: bool = False

    @property
    def name(self) -> str:
        """Names it in files and tables."""
        return f"{self.family}-{'pruned' if self.is_pruned else f'{self.width:g}'}"

    def inputs(self, count: int) -> Tensor:
        """Return smooth noise, float32 [count, C, H, W] or [count, C, T]."""
        return torch.rand(count, *FAMILIES[self.family].shape, generator=torch.Generator().manual_seed(1))

    def network(self) -> nn.Module:
        """Return it with random weights, in eval mode."""
        with torch.random.fork_rng():
            torch.manual_seed(7)
            net = FAMILIES[self.family].build(self.width).eval()
            if self.is_pruned:
                data = Tensors(self.inputs(CALIBRATION), torch.zeros(CALIBRATION, dtype=torch.int64))
                cut(Prune(**PRUNED), net, data)  # type: ignore[arg-type]
        return net.eval()

    def plan(self, net: nn.Module) -> QuantizationPlan:
        """Return its integers, calibrated on noise."""
        return quantize(net, self.inputs(CALIBRATION), embedding=False, observer="min-max", correct_bias=False)


def variants() -> Iterator[Variant]:
    """Yield all of them, family by family."""
    for family in FAMILIES:
        yield from (Variant(family, width) for width in WIDTHS)
        yield Variant(family, 1.0, is_pruned=True)


def _channels(count: float) -> int:
    """Return a width as networks have it: a multiple of four."""
    return max(4, round(count / 4) * 4)


def _scaled(width: float, *counts: int) -> list[int]:
    return [_channels(width * count) for count in counts]


def _classifier(*blocks: nn.Module, features: int, classes: int = 10) -> nn.Module:
    found: nn.Module = Classifier(*blocks, features=features, classes=classes)
    return found


def _mobilenet_v2(width: float) -> nn.Module:
    a, b, c, head = _scaled(width, 16, 24, 40, 160)
    rows = [(a, a, a, 1), (a, 4 * a, b, 2), (b, 4 * b, b, 1), (b, 4 * b, c, 2), (c, 4 * c, c, 1), (c, 4 * c, c, 1)]
    return _classifier(
        conv(1, a), *(Inverted(i, h, o, stride=s) for i, h, o, s in rows), conv(c, head, 1), features=head
    )


def _mobilenet_v3(width: float) -> nn.Module:
    a, b, c, head = _scaled(width, 16, 24, 40, 160)
    hs, re = nn.Hardswish, nn.ReLU
    blocks = [
        Inverted(a, a, a, 3, 1, re),
        Inverted(a, 4 * a, b, 3, 2, re),
        Inverted(b, 3 * b, b, 3, 1, re),
        Inverted(b, 4 * b, c, 5, 2, hs, excite=True),
        Inverted(c, 3 * c, c, 5, 1, hs, excite=True),
    ]
    return _classifier(conv(1, a, act=hs), *blocks, conv(c, head, 1, act=hs), features=head)


def _mobilenet_v1(width: float) -> nn.Module:
    widths = _scaled(width, 8, 16, 32, 32, 64, 64, 128)
    strides = (1, 2, 1, 2, 1, 2)
    pairs = [
        nn.Sequential(conv(i, i, 3, s, groups=i, act=nn.ReLU), conv(i, o, 1, act=nn.ReLU))
        for i, o, s in zip(widths, widths[1:], strides, strict=False)
    ]
    return _classifier(conv(1, widths[0], stride=2, act=nn.ReLU), *pairs, features=widths[-1], classes=2)


def _resnet(width: float) -> nn.Module:
    a, b, c = _scaled(width, 12, 24, 48)
    return _classifier(conv(3, a, act=nn.ReLU), Basic(a, a, 1), Basic(a, b, 2), Basic(b, c, 2), features=c)


class _Bottleneck(nn.Module):
    """He et al. 2016, figure 5 right."""

    def __init__(self, outer: int, inner: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(outer, inner, 1, act=nn.ReLU), conv(inner, inner, 3, act=nn.ReLU), conv(inner, outer, 1, act=None)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


def _bottleneck(width: float) -> nn.Module:
    a, b, small, large = _scaled(width, 32, 64, 8, 16)
    down = conv(a, b, 1, 2, act=nn.ReLU)
    blocks = [conv(3, a, 3, 2, act=nn.ReLU), _Bottleneck(a, small), _Bottleneck(a, small), down, _Bottleneck(b, large)]
    return _classifier(*blocks, features=b)


def _ds_cnn(width: float) -> nn.Module:
    [a] = _scaled(width, 48)
    stem = nn.Sequential(nn.Conv2d(1, a, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(a), nn.ReLU())
    pairs = [nn.Sequential(conv(a, a, groups=a, act=nn.ReLU), conv(a, a, 1, act=nn.ReLU)) for _ in range(4)]
    return _classifier(stem, *pairs, features=a, classes=12)


def _plain(width: float) -> nn.Module:
    a, b, c = _scaled(width, 8, 16, 32)
    pool = nn.MaxPool2d(2)
    blocks = [conv(1, a, act=nn.ReLU), pool, conv(a, b, act=nn.ReLU), pool, conv(b, c, act=nn.ReLU)]
    return _classifier(*blocks, features=c)


def _lenet(width: float) -> nn.Module:
    a, b, hidden = _scaled(width, 8, 16, 80)
    maps = [conv(1, a, 5, act=nn.ReLU), nn.MaxPool2d(2), conv(a, b, 5, act=nn.ReLU), nn.MaxPool2d(2)]
    return nn.Sequential(*maps, nn.Flatten(), nn.Linear(49 * b, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def _gated(width: float) -> nn.Module:
    a, b = _scaled(width, 16, 32)
    hs = nn.Hardswish
    blocks = [conv(3, a, 3, 2, act=hs), SqueezeExcite(a), conv(a, b, 3, 2, act=hs), SqueezeExcite(b)]
    return _classifier(*blocks, conv(b, b, 3, 2, b, hs), conv(b, 2 * b, 1, act=hs), features=2 * b)


class _Fire(nn.Module):
    """Iandola et al. 2016: squeeze, then two widths of kernels side by side."""

    def __init__(self, inputs: int, squeezed: int, each: int) -> None:
        super().__init__()
        self.squeeze = conv(inputs, squeezed, 1, act=nn.ReLU)
        self.one, self.three = conv(squeezed, each, 1, act=nn.ReLU), conv(squeezed, each, 3, act=nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.squeeze(x)
        return torch.cat([self.one(squeezed), self.three(squeezed)], 1)


def _squeezenet(width: float) -> nn.Module:
    a, s, e, f = _scaled(width, 16, 8, 16, 24)
    pool = nn.MaxPool2d(2)
    blocks = [conv(3, a, 3, 2, act=nn.ReLU), _Fire(a, s, e), _Fire(2 * e, s, e), pool, _Fire(2 * e, s, f)]
    return _classifier(*blocks, features=2 * f)


class _Grown(nn.Module):
    """Huang et al. 2017: each layer adds channels to those that are there."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.layer = conv(inputs, growth, 3, act=nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layer(x)], 1)


def _densenet(width: float) -> nn.Module:
    a, g = _scaled(width, 16, 12)
    first = [_Grown(a + i * g, g) for i in range(3)]
    middle = _channels((a + 3 * g) / 2)
    second = [_Grown(middle + i * g, g) for i in range(2)]
    narrowed = conv(a + 3 * g, middle, 1, act=nn.ReLU)
    return _classifier(
        conv(1, a, 3, 2, act=nn.ReLU), *first, narrowed, nn.MaxPool2d(2), *second, features=middle + 2 * g
    )


def _mlp(width: float) -> nn.Module:
    a, b = _scaled(width, 128, 64)
    layers = [nn.Linear(784, a), nn.ReLU(), nn.Linear(a, b), nn.ReLU(), nn.Linear(b, 10)]
    return nn.Sequential(nn.Flatten(), *layers)


def _autoencoder(width: float) -> nn.Module:
    """MLPerf Tiny's for sounds of machines (Banbury et al. 2021): as many outputs as inputs."""
    [a] = _scaled(width, 128)
    sizes = [640, a, a, a, 8, a, a, a]
    layers = [nn.Sequential(nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU()) for i, o in itertools.pairwise(sizes)]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(a, 640))


class _Series(nn.Module):
    """Convolutions along the time of a few sensors."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv1d(6, a, 5, 2, 2), nn.ReLU(), nn.Conv1d(a, a, 5, 1, 2), nn.ReLU(),
            nn.Conv1d(a, b, 3, 2, 1), nn.ReLU(), nn.Conv1d(b, b, 3, 1, 1), nn.ReLU(),
        )  # fmt: skip
        self.pool, self.head = nn.AdaptiveAvgPool1d(1), nn.Linear(b, 6)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.flatten(self.pool(self.maps(x)), 1))
        return logits


def _series(width: float) -> nn.Module:
    return _Series(*_scaled(width, 32, 64))


FAMILIES: Final[dict[str, Family]] = {
    "mobilenet-v2": Family(_mobilenet_v2, (1, 28, 28)),
    "mobilenet-v3": Family(_mobilenet_v3, (1, 28, 28)),
    "mobilenet-v1": Family(_mobilenet_v1, (1, 64, 64)),
    "resnet": Family(_resnet, (3, 32, 32)),
    "bottleneck": Family(_bottleneck, (3, 40, 40)),
    "ds-cnn": Family(_ds_cnn, (1, 49, 10)),
    "gated": Family(_gated, (3, 40, 40)),
    "plain-cnn": Family(_plain, (1, 28, 28)),
    "lenet": Family(_lenet, (1, 28, 28)),
    "squeezenet": Family(_squeezenet, (3, 48, 48)),
    "densenet": Family(_densenet, (1, 32, 32)),
    "mlp": Family(_mlp, (1, 28, 28)),
    "autoencoder": Family(_autoencoder, (1, 5, 128)),
    "series": Family(_series, (6, 128)),
}
