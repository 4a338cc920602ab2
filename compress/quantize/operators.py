# SPDX-License-Identifier: Apache-2.0
"""What each PyTorch operator becomes: the table of all that can be quantized."""

from typing import Any

import torch

from compress.quantize import arithmetic, layers, windows
from compress.quantize.reader import Arguments, Handler, Node, Reader, unsupported

__all__ = ["HANDLERS"]

aten = torch.ops.aten


def _same_tensor(r: Reader, n: Node, a: Arguments) -> None:
    r.skip(n, a["self"])


def _dropout(r: Reader, n: Node, a: Arguments) -> None:
    if a["train"]:
        raise unsupported(n, "a dropout in training mode", "call model.eval() before the export")
    r.skip(n, a["input"])


HANDLERS: dict[Any, Handler] = {
    aten.conv1d.default: layers.conv1d,
    aten.conv1d.padding: layers.conv1d,
    aten.conv2d.default: layers.conv2d,
    aten.conv2d.padding: layers.conv2d,
    aten.linear.default: layers.linear,
    aten.batch_norm.default: layers.batch_norm,
    aten.relu.default: arithmetic.clamp,
    aten.relu_.default: arithmetic.clamp,
    aten.relu6.default: arithmetic.clamp,
    aten.hardtanh.default: arithmetic.clamp,
    aten.hardtanh_.default: arithmetic.clamp,
    aten.clamp.default: arithmetic.clamp,
    aten.clamp_min.default: arithmetic.clamp,
    aten.hardsigmoid.default: arithmetic.hard_sigmoid,
    aten.hardsigmoid_.default: arithmetic.hard_sigmoid,
    aten.hardswish.default: arithmetic.gate("hard_swish"),
    aten.hardswish_.default: arithmetic.gate("hard_swish"),
    aten.silu.default: arithmetic.gate("silu"),
    aten.silu_.default: arithmetic.gate("silu"),
    aten.sigmoid.default: arithmetic.gate("sigmoid"),
    aten.sigmoid_.default: arithmetic.gate("sigmoid"),
    aten.add.Tensor: arithmetic.add,
    aten.add_.Tensor: arithmetic.add,
    aten.sub.Tensor: arithmetic.subtract,
    aten.mul.Tensor: arithmetic.multiply,
    aten.mul_.Tensor: arithmetic.multiply,
    aten.div.Tensor: arithmetic.divide,
    aten.cat.default: arithmetic.concat,
    aten.mean.dim: windows.mean,
    aten.adaptive_avg_pool1d.default: windows.adaptive_pool,
    aten.adaptive_avg_pool2d.default: windows.adaptive_pool,
    aten.avg_pool1d.default: windows.avg_pool,
    aten.avg_pool2d.default: windows.avg_pool,
    aten.max_pool1d.default: windows.max_pool,
    aten.max_pool2d.default: windows.max_pool,
    aten.pad.default: windows.pad,
    aten.constant_pad_nd.default: windows.pad,
    aten.flatten.using_ints: windows.reshape,
    aten.view.default: windows.reshape,
    aten.reshape.default: windows.reshape,
    aten.squeeze.default: windows.reshape,
    aten.squeeze.dim: windows.reshape,
    aten.squeeze.dims: windows.reshape,
    aten.unsqueeze.default: windows.reshape,
    aten.contiguous.default: _same_tensor,
    aten.clone.default: _same_tensor,
    aten.alias.default: _same_tensor,
    aten.detach.default: _same_tensor,
    aten.dropout.default: _dropout,
    aten.dropout_.default: _dropout,
}
