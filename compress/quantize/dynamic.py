# SPDX-License-Identifier: Apache-2.0
"""What ONNX Runtime's dynamic int8 computes, in torch: weights rounded before, activations while the model runs.

Each linear layer takes the range of its whole input, widened to hold zero, as 256 steps (ONNX: DynamicQuantizeLinear),
multiplies integers exactly, and scales the sums back to float32. One input is one run on a device, so here each row of
a batch has a range of its own. An LSTM does the same with its input once and with its state at every step. Products of
two activations, convolutions and GRU cells stay float, as they do in the file; embeddings are rounded row by row.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from compress.quantize.blocks import round_weight
from compress.quantize.layer_weights import layer_weights

__all__ = ["DynamicInt8", "dynamic_linear", "quantized_rows"]

_HIGH = 127
# A program out of torch.export calls the operators below torch's functions.
_LINEAR = (F.linear, torch.ops.aten.linear.default)
_LSTM = (torch.lstm, torch.ops.aten.lstm.input)
_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.ops.aten.matmul.default)


def quantized_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x [N, ...] as whole steps from zero, -255..255, and the scale of each row [N, 1, ...].

    Example:
        >>> steps, scales = quantized_rows(torch.tensor([[0.0, 2.55, 1.0], [-1.0, 1.55, 0.0]]))
        >>> steps.tolist(), [round(s, 4) for s in scales.flatten().tolist()]
        ([[0.0, 255.0, 100.0], [-100.0, 155.0, 0.0]], [0.01, 0.01])
    """
    over = tuple(range(1, x.dim()))
    low, high = x.amin(over, keepdim=True).clamp(max=0.0), x.amax(over, keepdim=True).clamp(min=0.0)
    scale = (high - low) / 255
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = torch.round(-low / scale).clamp(0, 255)
    return (torch.round(x / scale) + zero).clamp(0, 255) - zero, scale


def _weight_steps(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a weight [out, in] as whole steps and its scales [out]."""
    scale = weight.detach().abs().amax(1) / _HIGH
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.round(weight / scale[:, None]).clamp(-_HIGH, _HIGH), scale


def dynamic_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x [N, ..., in] times weight [out, in], both as integers, in float32 [N, ..., out].

    Example:
        >>> dynamic_linear(torch.tensor([[255.0, 1.0]]), torch.tensor([[1.0, 127.0]])).tolist()
        [[382.0]]
    """
    steps, scale = quantized_rows(x)
    codes, channel = _weight_steps(weight)
    sums = (steps.double() @ codes.double().T).float()
    made = sums * (scale * channel)
    return made if bias is None else made + bias


def _lstm(
    x: Tensor, start: tuple[Tensor, Tensor], weights: list[Tensor], *settings: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return outputs, last states and last cells, like ``torch.lstm`` of the same arguments in evaluation."""
    has_biases, layers, _, _, bidirectional, batch_first = settings
    x = x if batch_first else x.transpose(0, 1)
    directions = 2 if bidirectional else 1
    of_each = len(weights) // (layers * directions)
    ends = []
    for layer in range(layers):
        made = []
        for place in range(layer * directions, (layer + 1) * directions):
            own, is_back = weights[place * of_each : (place + 1) * of_each], place % directions == 1
            bias = own[2] + own[3] if has_biases else None
            given = x.flip(1) if is_back else x
            outputs, end = _cells(given, (start[0][place], start[1][place]), own[0], own[1], bias)
            made.append(outputs.flip(1) if is_back else outputs)
            ends.append(end)
        x = torch.cat(made, 2)
    states, cells = (torch.stack(parts) for parts in zip(*ends, strict=True))
    return x if batch_first else x.transpose(0, 1), states, cells


def _cells(
    x: Tensor, start: tuple[Tensor, Tensor], enter: Tensor, recur: Tensor, bias: Tensor | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One direction of one layer: inputs [N, T, in] → states [N, T, hidden], and the last state and cell [N, hidden].

    Reference: Hochreiter & Schmidhuber, "Long Short-Term Memory", 1997; gates in torch's order, i f g o.
    """
    (state, cell), entering, found = start, dynamic_linear(x, enter, bias), []
    for step in range(x.shape[1]):
        i, f, g, o = (entering[:, step] + dynamic_linear(state, recur)).chunk(4, 1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        state = torch.sigmoid(o) * torch.tanh(cell)
        found.append(state)
    return torch.stack(found, 1), (state, cell)


class _Dynamic(TorchFunctionMode):
    """Every linear layer that runs inside computes in integers, whoever calls it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _LINEAR:
            return dynamic_linear(*args, **(kwargs or {}))
        if func in _PRODUCTS and isinstance(args[1], nn.Parameter) and args[1].dim() == 2:
            return dynamic_linear(args[0], args[1].T)
        if func in _LSTM and isinstance(args[2], list | tuple):  # not of packed sequences: they have no ONNX form
            return _lstm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class DynamicInt8(nn.Module):
    """A module whose linear layers compute like ONNX Runtime's dynamic int8; for evaluation only.

    Args:
        model: Its embeddings are changed: rounded to int8.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            for _, weight, is_table in layer_weights(model):
                if is_table:
                    weight.copy_(round_weight(weight, "weight-only-int8").weight(weight.shape))
        self.training = False

    def forward(self, *inputs: Tensor) -> Any:
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # the fused kernels call no linear layer
        try:
            with torch.no_grad(), _Dynamic():
                return self.model(*inputs)
        finally:
            torch.backends.mha.set_fastpath_enabled(before)
