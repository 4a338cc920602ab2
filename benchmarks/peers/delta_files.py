# SPDX-License-Identifier: Apache-2.0
"""Real pairs of model files for ``python -m benchmarks.delta``: what an update changes in practice.

Each network is quantized by our own chain and written as TFLite and ONNX, then changed in three ways:

==============  ======================================================================================================
head            the last layer is trained again on the frozen body, and rounded with the scales that it had
tuned, frozen   every weight is trained on; weights and biases are rounded with the scales that they had
tuned           the same weights, but ranges are observed and scales are chosen anew
==============  ======================================================================================================

MobileNetV2-like: the zoo's checkpoint, Fashion-MNIST. EfficientNet-Lite0: published ImageNet weights with a head for
ten classes, trained on the features of Fashion-MNIST images of 224×224 (a stand-in for a user's ten classes).
Needs torch and the zoo, so it runs on the workstation: ``python -m benchmarks.peers.delta_files FOLDER``.
"""

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.quantize.graph import FloatGraph, layer_names
from compress.quantize.plan import QuantizationPlan
from compress.quantize.step import Quantizer, folded, quantize
from compress.steps.quantize import Settings
from export.onnx import writer as onnx_writer
from export.tflite import writer as tflite_writer

__all__ = ["CHANGES", "NETS", "frozen", "main", "make", "scattered"]

NETS: Final = ("mobilenet-v2", "efficientnet-lite0")
CHANGES: Final = ("head", "tuned, frozen", "tuned")
_HEAD_STEPS: Final = 400


def _images(net: str, count: int) -> tuple[Tensor, Tensor]:
    """Return training images and classes: 28×28 as they are, or 224×224 in three channels."""
    from tests.zoo import data

    images, classes = data.load("train")
    order = np.random.default_rng(7).permutation(len(images))[:count]
    x = data.scaled(images[order])
    if net == "efficientnet-lite0":
        x = F.interpolate(x, (224, 224), mode="bilinear").repeat(1, 3, 1, 1) * 2 - 1
    return x, torch.from_numpy(classes[order])


def _network(net: str) -> tuple[nn.Module, str]:
    """Return a network of the zoo with a head for ten classes, and the head's name."""
    from tests.zoo.models import load

    model = load(net)
    name, head = next((n, m) for n, m in reversed(list(model.named_modules())) if isinstance(m, nn.Linear))
    if head.out_features != 10:
        model.set_submodule(name, nn.Linear(head.in_features, 10))
    return model.eval(), name


def _features(model: nn.Module, head: str, x: Tensor) -> Tensor:
    found: list[Tensor] = []
    hook = model.get_submodule(head).register_forward_pre_hook(lambda _m, given: found.append(given[0].detach()))
    with torch.no_grad():
        for batch in torch.split(x, 20):
            model(batch)
    hook.remove()
    return torch.cat(found)


def _train_head(model: nn.Module, head: str, features: Tensor, targets: Tensor) -> None:
    """Train the last layer alone: AdamW, batches of 64, ``_HEAD_STEPS`` of them."""
    layer = model.get_submodule(head)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=2e-3)
    order = torch.Generator().manual_seed(1)
    for _ in range(_HEAD_STEPS):
        rows = torch.randint(len(features), (64,), generator=order)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(layer(features[rows]), targets[rows]))
        optimizer.step()


def _tune(model: nn.Module, x: Tensor, targets: Tensor, steps: int, batch: int) -> nn.Module:
    """Return a copy of which every weight was trained on; BatchNorm keeps its statistics, as is usual on few data."""
    tuned = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(tuned.parameters(), lr=1e-4)
    for step in range(steps):
        rows = torch.arange(step * batch, (step + 1) * batch) % len(x)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(tuned(x[rows]), targets[rows]))
        optimizer.step()
    return tuned


def frozen(plan: QuantizationPlan, before: FloatGraph, after: FloatGraph) -> QuantizationPlan:
    """Return the plan with the weights of another training, rounded to the scales that the plan has.

    Args:
        plan: Of the network before.
        before, after: Folded graphs of both. A bias moves by what training moved it, so that a correction stays.
    """
    first, second = (dict(zip(layer_names(g), g.operations, strict=True)) for g in (before, after))
    constants = dict(plan.constants)
    for op in plan.operations:
        if not op.bias:
            continue
        weight, bias, old, new = constants[op.weight], constants[op.bias], first[op.name], second[op.name]
        shape = (-1, *([1] * (weight.codes.ndim - 1)))
        codes = np.rint(_numbers(new.weight) / weight.scales.astype(np.float64).reshape(shape))
        moved = np.rint((_numbers(new.bias) - _numbers(old.bias)) / bias.scales.astype(np.float64))
        if not np.array_equal(_numbers(new.weight), _numbers(old.weight)):
            constants[op.weight] = replace(weight, codes=np.clip(codes, -127, 127).astype(np.int8))
        constants[op.bias] = replace(bias, codes=(bias.codes + moved).astype(np.int32))
    return replace(plan, constants=constants)


def _numbers(values: Any) -> Any:
    return values.detach().double().numpy()


def _write(plan: QuantizationPlan, folder: Path, name: str) -> None:
    tflite_writer.write(plan, folder / f"{name}.tflite")
    onnx_writer.write(plan, folder / f"{name}.onnx")


def scattered(data: bytes, parts: list[tuple[int, int]], share: float) -> bytes:
    """Return a file with ±1 added to a share of the int8 numbers in some byte ranges, as bsdiff likes it best."""
    draw = np.random.default_rng(3)
    found = np.frombuffer(data, np.int8).copy()
    for offset, length in parts:
        part = found[offset : offset + length]
        rows = np.flatnonzero((draw.random(length) < share) & (np.abs(part.astype(np.int16)) < 127))
        part[rows] += draw.choice(np.array([-1, 1], np.int8), len(rows))
    return found.tobytes()


def make(net: str, folder: Path, say: Callable[[str], None]) -> None:
    """Write ``<net>/base.*`` and one pair of files for each change below a folder; what is there is left."""
    out = folder / net
    if (out / "tuned.onnx").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    is_large = net == "efficientnet-lite0"
    model, head = _network(net)
    x, targets = _images(net, 320 if is_large else 4096)
    say(f"{net}: features of {len(x)} images")
    features = _features(model, head, x)
    half = len(x) // 2
    _train_head(model, head, features[:half], targets[:half])
    calibration = x[:64] if is_large else x[:256]
    say(f"{net}: quantizing")
    plan = quantize(model, calibration)
    _write(plan, out, "base")
    before = folded(model, calibration[:1])
    retrained = copy.deepcopy(model)
    _train_head(retrained, head, features, targets)
    _write(frozen(plan, before, folded(retrained, calibration[:1])), out, "head")
    say(f"{net}: training every weight on")
    tuned = _tune(model, x, targets, 12 if is_large else 200, 8 if is_large else 64)
    _write(frozen(plan, before, folded(tuned, calibration[:1])), out, "tuned, frozen")
    _write(Quantizer(tuned, calibration).plan(Settings()), out, "tuned")


def main() -> None:
    """Make the files of all networks."""
    for net in NETS:
        make(net, Path(sys.argv[1]), lambda words: print(words, file=sys.stderr))


if __name__ == "__main__":
    main()
