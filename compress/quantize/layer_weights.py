# SPDX-License-Identifier: Apache-2.0
"""Which parameters of a model are weights of layers: of modules, and of programs out of ``torch.export``."""

import contextlib
import copy
import warnings
from collections.abc import Iterator
from typing import Final

import torch
from torch import fx, nn

__all__ = ["duplicate", "layer_weights"]

_LAYERS: Final = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Embedding,
    nn.RNNBase,
    nn.MultiheadAttention,
)
_OPERATORS: Final = ("linear", "conv", "convolution", "embedding", "lstm", "gru", "rnn", "matmul", "addmm")
_DYNAMIC: Final = (nn.Linear, nn.Embedding, nn.LSTM, nn.MultiheadAttention)
_DYNAMIC_OPERATORS: Final = ("linear", "embedding", "lstm", "matmul", "addmm")
"""What dynamic int8 stores as integers; convolutions and other recurrent cells stay float."""


def layer_weights(model: nn.Module, *, is_dynamic: bool = False) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Yield (name, weight [rows, ...], whether an embedding alone reads it), tied weights once.

    Args:
        model: Any module.
        is_dynamic: Leave out what dynamic int8 leaves in float.

    Example:
        >>> net = nn.Sequential(nn.Embedding(4, 2), nn.Linear(2, 1))
        >>> [(name, is_table) for name, _, is_table in layer_weights(net)]
        [('0.weight', True), ('1.weight', False)]
    """
    found: dict[int, tuple[str, nn.Parameter, bool]] = {}
    kinds, operators = (_DYNAMIC, _DYNAMIC_OPERATORS) if is_dynamic else (_LAYERS, _OPERATORS)
    for name, parameter, is_table in (*_of_modules(model, kinds), *_of_programs(model, operators)):
        if parameter.dim() >= 2 and parameter.is_floating_point():
            first, _, was_table = found.get(id(parameter), (name, parameter, True))
            found[id(parameter)] = (first, parameter, is_table and was_table)
    yield from found.values()


def _of_modules(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[tuple[str, nn.Parameter, bool]]:
    for path, module in model.named_modules():
        if isinstance(module, kinds):
            for name, parameter in module.named_parameters(recurse=False):
                yield f"{path}.{name}" if path else name, parameter, isinstance(module, nn.Embedding)


def _of_programs(model: nn.Module, operators: tuple[str, ...]) -> Iterator[tuple[str, nn.Parameter, bool]]:
    for module in model.modules():
        # A loaded model keeps its program in a list, hidden from nn.Module.
        hidden = getattr(module, "program", ())
        for program in (module, *(hidden if isinstance(hidden, list) else ())):
            if isinstance(program, fx.GraphModule):
                yield from _of_graph(program, operators)


def _of_graph(program: fx.GraphModule, operators: tuple[str, ...]) -> Iterator[tuple[str, nn.Parameter, bool]]:
    parameters = dict(program.named_parameters())
    for node in program.graph.nodes:
        kind = str(node.target).removeprefix("aten.") if node.op == "call_function" else ""
        if kind.startswith(operators):
            for source in node.all_input_nodes:
                if source.op == "get_attr" and str(source.target) in parameters:
                    yield str(source.target), parameters[str(source.target)], kind.startswith("embedding")


def duplicate(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode; a program out of ``torch.export`` is in its final mode already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch's own classes, while a program is copied
        made = copy.deepcopy(model)
    with contextlib.suppress(NotImplementedError), torch.no_grad():
        made.eval()
    return made
