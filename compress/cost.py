# SPDX-License-Identifier: Apache-2.0
"""What a model costs: multiply-accumulates, parameters, activation memory, bytes of weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edge_contract.errors import ModelError

__all__ = ["Cost", "LayerCost", "measure", "weight_bytes"]


@dataclass(frozen=True)
class LayerCost:
    """One layer on one input.

    Attributes:
        name, kind: Name in the model, class of the module.
        macs: Multiply-accumulates.
        parameters: Trainable numbers.
        elements: Numbers in its inputs and its output together.
        channels: Outputs channels or features.
    """

    name: str
    kind: str
    macs: int
    parameters: int
    elements: int
    channels: int

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Cost:
    """The sum over a model on one input, and its layers in the order of the forward pass."""

    macs: int
    parameters: int
    peak_elements: int
    layers: tuple[LayerCost, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "macs": self.macs,
            "parameters": self.parameters,
            "peak_elements": self.peak_elements,
            "layers": [layer.to_json() for layer in self.layers],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Cost":
        layers = tuple(LayerCost(**layer) for layer in document["layers"])
        return cls(int(document["macs"]), int(document["parameters"]), int(document["peak_elements"]), layers)


_LAYERS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)


def _macs(module: nn.Module, given: Tensor, output: Tensor) -> int:
    """Each output of a convolution costs in/groups × kh × kw products, each of a linear layer its inputs.

    A transposed convolution spreads each input over out/groups × kh × kw outputs.
    """
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d)):
        return given[0].numel() * module.weight[0].numel()
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return output[0].numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return output[0].numel() * module.in_features
    return 0


@torch.no_grad()
def measure(model: nn.Module, example: Tensor) -> Cost:
    """Return the cost of one input.

    Batch normalisation counts no multiply-accumulates: it is folded into the layer before it.

    Args:
        model: Any module of convolutions, transposed or not, Linear, and layers without products.
        example: float32 [1,C,H,W].

    Raises:
        ModelError: The model does not take this input.

    Example:
        >>> measure(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 10, 10)).macs  # 8·100 outputs of 27 products
        21600
    """
    names = {module: name for name, module in model.named_modules()}
    found: list[LayerCost] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        elements = sum(t[0].numel() for t in (*inputs, output) if isinstance(t, Tensor) and t.ndim)
        own = sum(p.numel() for p in module.parameters(recurse=False))
        channels = output.shape[1] if output.ndim > 1 else 1
        macs = _macs(module, inputs[0], output)
        found.append(LayerCost(names[module], type(module).__name__, macs, own, elements, channels))

    # A layer may hold others, such as the padding that a convolution of another library does itself.
    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, _LAYERS) or not [*m.children()]]
    was_training = model.training
    try:
        model.eval()(example)
    except RuntimeError as error:
        fix = "make preprocessing and model agree"
        raise ModelError(f"the model refuses {list(example.shape)}: {error}", fix=fix) from error
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    parameters = sum(p.numel() for p in model.parameters())
    peak = max((layer.elements for layer in found), default=0)
    return Cost(sum(layer.macs for layer in found), parameters, peak, tuple(found))


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of the weights as a float32 file ships them: parameters, with batch normalisation folded.

    Folding turns the four vectors of a normalisation into the bias of the convolution before it.

    Example:
        >>> weight_bytes(nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4)))  # 36 weights, 4 biases
        160
    """
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    total = 0
    for module in model.modules():
        own = sum(p.numel() for p in module.parameters(recurse=False))
        total += own // 2 if isinstance(module, norms) else own
    return 4 * total
