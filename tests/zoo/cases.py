# SPDX-License-Identifier: Apache-2.0
"""The eleven networks of the zoo as the matrix sees them: a few inputs with labels, and names of a few of their layers.

EfficientNet-Lite0 is built by its own package at a quarter of the width, half of the depth and 32×32 pixels, so that
its blocks are all there and a cell of the matrix takes a tenth of a second.
"""

import copy
import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.quantize.step import Quantizer
from compress.sources import Tensors
from tests.zoo import models, others

__all__ = ["CASES", "Case", "case", "slim_lite0"]

SAMPLES = 8
FEATURES = {
    "mobilenet-v2": "blocks.3",
    "mobilenet-v3": "blocks.3",
    "resnet-8": "blocks.1",
    "ds-cnn": "blocks.1",
    "efficientnet-lite0": "_blocks.3",
    "vit": "blocks.0",
    "lstm": "layer",
    "gru": "layer",
    "conv1d": "3",
    "autoencoder": "3",
    "unet": "second",
}
"""The layer of which a user would compare the outputs."""
CASES = tuple(FEATURES)


@dataclass(frozen=True, eq=False)
class Case:
    """One network, its teacher (the same one before its weights were shaken), and data.

    Attributes:
        name: In the zoo.
        net: In eval mode; ``fresh`` copies it.
        teacher: What it was.
        data: Inputs [8, ...] with labels: classes [8], of the U-Net a class for each pixel [8, 32, 32].
    """

    name: str
    net: nn.Module
    teacher: nn.Module
    data: Tensors

    @property
    def fresh(self) -> nn.Module:
        """A copy to change."""
        return copy.deepcopy(self.net)

    @functools.cached_property
    def answers(self) -> Tensor:
        """What the network answers, [8, ...]."""
        with torch.no_grad():
            found: Tensor = self.net(self.data.x)
        return found

    @functools.cached_property
    def quantizer(self) -> Quantizer:
        """The network traced for integers, once for all methods that make a plan."""
        return Quantizer(self.net, self.data.x)


def slim_lite0() -> nn.Module:
    """EfficientNet-Lite0's blocks, thinner and fewer, for 32×32×3 and ten classes; without dropout."""
    from efficientnet_lite_pytorch import EfficientNet

    words = {"width_coefficient": 0.25, "depth_coefficient": 0.5, "image_size": 32, "num_classes": 10}
    net: nn.Module = EfficientNet.from_name("efficientnet-lite0", dropout_rate=0.0, drop_connect_rate=0.0, **words)
    return net


@functools.cache
def case(name: str) -> Case:
    """Return a network with its data, made once."""
    torch.manual_seed(3)
    if name == "efficientnet-lite0":
        net, x = _settled(slim_lite0()), models.noise(SAMPLES, 5, (3, 32, 32))
    elif name in models.MEMBERS:
        net, x = models.load(name), models.noise(SAMPLES, 5, models.MEMBERS[name].shape)
    else:
        net, x = others.load(name), others.inputs(name, SAMPLES, 5)
    shaken = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in shaken.parameters():
            spread = 0.3 * parameter.std() if parameter.numel() > 1 else 0.0
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
        answers = shaken(x)
    places = torch.Size([SAMPLES, *answers.shape[2:]])
    y = torch.randint(0, answers.shape[1], places, generator=generator)
    return Case(name, shaken, net, Tensors(x, y))


def _settled(net: nn.Module) -> nn.Module:
    """Give every BatchNorm the statistics of its own data."""
    net.train()
    with torch.no_grad():
        for i in range(8):
            net(models.noise(16, 100 + i, (3, 32, 32)))
    return net.eval()
