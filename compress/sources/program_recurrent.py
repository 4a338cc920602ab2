# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers of an exported program, which hold all their weights in one operator."""

import operator
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from compress.sources.assembly import Assembly, filled
from compress.sources.program_layers import Arguments, Lookup
from edge_contract.errors import UnsupportedOperatorError

__all__ = ["RECURRENT", "call_recurrent", "read_recurrent"]

aten = torch.ops.aten
RECURRENT: Final[dict[Any, tuple[type[nn.Module], dict[str, Any]]]] = {
    aten.lstm.input: (nn.LSTM, {}),
    aten.gru.input: (nn.GRU, {}),
    aten.rnn_tanh.input: (nn.RNN, {"nonlinearity": "tanh"}),
    aten.rnn_relu.input: (nn.RNN, {"nonlinearity": "relu"}),
}


def read_recurrent(node: fx.Node, a: Arguments, find: Lookup) -> nn.Module:
    """Return the layer behind ``lstm``, ``gru`` or ``rnn``.

    Raises:
        UnsupportedOperatorError: It starts from another state than zeros, or its weights are computed.
    """
    where = f"node '{node.name}'"
    for state in a["hx"] if isinstance(a["hx"], list | tuple) else [a["hx"]]:
        constant = find(state)
        if state.target is not aten.zeros.default and (constant is None or bool(constant.any())):
            fix = "let it start from zeros: call it with the sequence alone"
            raise UnsupportedOperatorError("a recurrent layer with a state of its own", where=where, fix=fix)
    tensors = [find(one) for one in a["params"]]
    if any(tensor is None for tensor in tensors):
        fix = "store its weights as parameters"
        raise UnsupportedOperatorError("a recurrent layer whose weights are computed", where=where, fix=fix)
    kind, extra = RECURRENT[node.target]
    words = {name: a[name] for name in ("num_layers", "batch_first", "bidirectional", "dropout")} | extra
    first, second = tensors[0], tensors[1]
    assert first is not None
    assert second is not None
    return _layer(kind, first.shape[1], second.shape[1], {**words, "bias": a["has_biases"]}, tensors)


def _layer(
    kind: type[nn.Module], inputs: int, hidden: int, words: dict[str, Any], tensors: list[Tensor | None]
) -> nn.Module:
    with torch.device("meta"):
        names = [name for name, _ in kind(inputs, hidden, **words).named_parameters()]
    return filled(kind, inputs, hidden, values=dict(zip(names, tensors, strict=True)), **words)


def call_recurrent(made: Assembly, called: fx.Node, *, is_lstm: bool) -> tuple[fx.Node, ...]:
    """Return the operator's results in its order: output, last hidden state, and of an LSTM the last cell state."""
    output = made.function(operator.getitem, called, 0)
    state = made.function(operator.getitem, called, 1)
    if not is_lstm:
        return output, state
    return output, made.function(operator.getitem, state, 0), made.function(operator.getitem, state, 1)
