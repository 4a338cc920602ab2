# SPDX-License-Identifier: Apache-2.0
"""The quantized networks on which drift is measured: trained here, exported in integers, run in ONNX Runtime.

``benchmarks.drift.material`` asks for one and for its answers. Each is trained on its own share of the data; reference
profile, null windows and shifted windows come from the rest, so that nothing is measured on what was fitted.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.quantize.calibrate import calibrate
from compress.quantize.decide import decide
from compress.quantize.graph import FloatGraph
from compress.quantize.step import folded
from compress.trainer import Augment, Training, train
from edge_agent.runner.model import Description, Model
from edge_agent.runner.preprocess import apply_batch
from edge_contract.preprocess import Preprocessing
from export.bundle.reference import build_profile
from export.onnx import writer

__all__ = ["Training", "adversarial", "build_profile", "cnn", "mlp", "quantized", "trained", "watch_net"]
__all__ += ["watch_preprocess"]

Array = NDArray[Any]
CALIBRATION = 512


def mlp() -> nn.Module:
    """Return the perceptron of the digits protocol: 64-64-32-10 on [N,1,8,8]."""
    layers = nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    return nn.Sequential(*layers)


def cnn() -> nn.Module:
    """Return a CNN of 19 k parameters and 0.9 M multiply-accumulates on [N,1,28,28]."""

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    body = [*block(1, 16, 2), *block(16, 32, 2), *block(32, 48, 1)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))


def watch_net() -> nn.Module:
    """Return the network of the watch story."""
    from examples.watch.model import network

    return network()


def watch_preprocess() -> Preprocessing:
    """Return how the watch story prepares its series."""
    from compress import recipe
    from examples.watch import data

    return recipe.load(Path(data.__file__).with_name("watch.toml")).preprocess


def _floats(preprocess: Preprocessing, raw: Array) -> Tensor:
    """Return raw inputs as the network takes them, channels first."""
    given = np.moveaxis(apply_batch(preprocess, raw), -1, 1)
    return torch.from_numpy(np.ascontiguousarray(given, np.float32))


def trained(
    factory: Callable[[], nn.Module],
    preprocess: Preprocessing,
    raw: Array,
    labels: Array,
    training: Training,
    *,
    augment: Augment | None = None,
) -> nn.Module:
    """Return a network trained on raw inputs [n, …] with their classes [n]."""
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        net = factory()
    train(net, _floats(preprocess, raw), torch.from_numpy(labels.astype(np.int64)), training, augment=augment)
    return net.eval()


def quantized(
    net: nn.Module,
    preprocess: Preprocessing,
    raw: Array,
    labels: tuple[str, ...],
    path: Path,
    *,
    embedding: bool = True,
) -> Model:
    """Write a network in integers, calibrated on the first raw inputs, and return it in ONNX Runtime."""
    samples = _floats(preprocess, raw[:CALIBRATION])
    with torch.no_grad():
        graph: FloatGraph = folded(net, samples[:1])
        observed = calibrate(graph, samples if samples.ndim == 4 else samples.unsqueeze(2))
    choices = {"embedding": embedding, "tie_free": True, "fixed_point": True, "correct_bias": True}
    plan = decide(graph, observed, samples=len(samples), **choices)
    artefact = writer.write(plan, path)
    return Model.load(path, Description(artefact, preprocess, "softmax", labels), runtime="onnxruntime")


def adversarial(net: nn.Module, preprocess: Preprocessing, raw: Array, *, step: float) -> Array:
    """Return images one signed gradient step away from the float network's own answers (Goodfellow et al. 2015).

    Args:
        net: The float network.
        preprocess: With ``scale`` 1/255.
        raw: uint8 [n, H, W].
        step: In grey values of 255.
    """
    out = []
    for batch in torch.split(_floats(preprocess, raw), 500):
        x = batch.clone()
        x.requires_grad = True
        logits = net(x)
        nn.functional.cross_entropy(logits, logits.argmax(1)).backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        out.append(_raw_of(x.detach() * 255 + step * x.grad.sign()))
    return np.concatenate(out)


def _raw_of(values: Tensor) -> Array:
    """Return grey values [n, 1, H, W] as bytes [n, H, W]."""
    return values.round().clamp(0, 255).to(torch.uint8).squeeze(1).numpy()
