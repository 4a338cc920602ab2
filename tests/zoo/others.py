# SPDX-License-Identifier: Apache-2.0
"""The rest of the zoo, beyond convolutional classifiers. Every method works on each or refuses it by name.

They are not among ``models.MEMBERS``: no promise about integers is made for them. Weights are random, BatchNorm is
settled on data.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["OTHERS", "Other", "autoencoder", "conv1d", "gru", "inputs", "load", "lstm", "unet", "vit"]


class Attention(nn.Module):
    """Self-attention with one fused layer for queries, keys and values (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        qkv = self.qkv(x).reshape(count, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return self.out(mixed.transpose(1, 2).reshape(count, tokens, width))


class Block(nn.Module):
    """Transformer block with normalisation in front (Xiong et al. 2020)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        return x + self.mlp(self.second(x))


class Vit(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2021) for 28×28×1: 49 patches, 3 blocks, mean of the tokens."""

    def __init__(self, width: int = 48, heads: int = 3, depth: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.places = nn.Parameter(torch.randn(1, 49, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(tokens)).mean(1))


class Recurrent(nn.Module):
    """A recurrent layer over a series [N, C, L] and a linear layer on its last state."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(layer.hidden_size, 6)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.layer(x.transpose(1, 2))
        return self.head(states[:, -1])


class Unet(nn.Module):
    """U-Net (Ronneberger et al. 2015) for 32×32×1: one way up by a transposed convolution, one by resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = _pair(1, 8), _pair(8, 16), _pair(16, 32)
        self.up, self.fourth = nn.ConvTranspose2d(32, 16, 2, 2), _pair(32, 16)
        self.fifth, self.head = _pair(24, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(F.max_pool2d(first, 2))
        third = self.third(F.max_pool2d(second, 2))
        fourth = self.fourth(torch.cat([self.up(third), second], 1))
        wide = F.interpolate(fourth, scale_factor=2, mode="nearest")
        return self.head(self.fifth(torch.cat([wide, first], 1)))


def _pair(inputs: int, outputs: int) -> nn.Sequential:
    layers = (nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
    return nn.Sequential(*layers, nn.Conv2d(outputs, outputs, 3, 1, 1), nn.ReLU())


def vit() -> nn.Module:
    """Tiny vision transformer with fused qkv."""
    return Vit()


def lstm() -> nn.Module:
    """LSTM of 48 cells over 64 steps of three axes."""
    return Recurrent(nn.LSTM(3, 48, batch_first=True))


def gru() -> nn.Module:
    """GRU of 48 cells over 64 steps of three axes."""
    return Recurrent(nn.GRU(3, 48, batch_first=True))


def conv1d() -> nn.Module:
    """1-D CNN for 128 steps of three axes and 6 activities."""
    rows = [(3, 16, 2), (16, 32, 2), (32, 32, 1)]
    layers = [(nn.Conv1d(i, o, 5, s, 2, bias=False), nn.BatchNorm1d(o), nn.ReLU()) for i, o, s in rows]
    ends = (nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 6))
    return nn.Sequential(*(layer for part in layers for layer in part), *ends)


def autoencoder() -> nn.Module:
    """Fully-connected autoencoder of MLPerf Tiny, narrower: 160 spectral features through 8."""
    sizes = (160, 64, 8, 64)
    layers = [(nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.ReLU()) for i, o in itertools.pairwise(sizes)]
    return nn.Sequential(*(layer for part in layers for layer in part), nn.Linear(64, 160))


def unet() -> nn.Module:
    """Small U-Net: concatenation, resizing, transposed convolution; two classes per pixel."""
    return Unet()


@dataclass(frozen=True)
class Other:
    """One network: how it is built, its input without batch, and its output without batch."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    output: tuple[int, ...]


OTHERS = {
    "vit": Other(vit, (1, 28, 28), (10,)),
    "lstm": Other(lstm, (3, 64), (6,)),
    "gru": Other(gru, (3, 64), (6,)),
    "conv1d": Other(conv1d, (3, 128), (6,)),
    "autoencoder": Other(autoencoder, (160,), (160,)),
    "unet": Other(unet, (1, 32, 32), (2, 32, 32)),
}


def inputs(name: str, count: int, seed: int = 0) -> Tensor:
    """Return smooth noise of changing strength [count, *shape]."""
    generator = torch.Generator().manual_seed(seed)
    shape = OTHERS[name].shape
    rough = torch.rand(count, 1, *shape, generator=generator).flatten(1, -2)
    smooth = F.avg_pool1d(rough, 5, 1, 2).reshape(count, *shape)
    return smooth * torch.rand(count, *(1 for _ in shape), generator=generator) * 2


def load(name: str) -> nn.Module:
    """Return a network in evaluation mode, its BatchNorm settled on data."""
    torch.manual_seed(7)
    net = OTHERS[name].build()
    net.train()
    with torch.no_grad():
        for i in range(8):
            net(inputs(name, 16, 100 + i))
    return net.eval()
