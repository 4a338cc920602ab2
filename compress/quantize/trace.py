# SPDX-License-Identifier: Apache-2.0
"""Read a module into a FloatGraph by ``torch.export``: operators, parameters, and the module path of each.

An operator outside the table (``operators``) ends in one UnsupportedOperatorError that names the layer and a rewrite.
"""

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn

from compress.quantize.graph import FloatGraph
from compress.quantize.operators import HANDLERS
from compress.quantize.reader import Reader, canonical
from edge_contract.errors import ModelError, UnsupportedOperatorError

__all__ = ["trace"]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """torch.export logs whole tracebacks of what it also raises; our answer is one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _exported(model: nn.Module, example: Tensor) -> Any:
    try:
        with _quietly():
            module = copy.deepcopy(model).cpu()
            with contextlib.suppress(NotImplementedError):  # a module out of torch.export is in its final mode already
                module.eval()
            module(example)  # a wrong shape is said more clearly by PyTorch itself than by the export
            return torch.export.export(module, (example,))
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:200]
        shape = list(example.shape)
        fix = "give the shape that the model expects, and use no branch that depends on the data"
        raise ModelError(f"cannot be traced on an input of shape {shape}: {reason}", where="model", fix=fix) from error


_REFUSED: Final = {
    nn.RNNBase: "its state goes round, and a plan's tensors are computed once",
    nn.MultiheadAttention: "it multiplies activations with each other and normalises them by a softmax",
    nn.LayerNorm: "it normalises by statistics of each input, which integers cannot fold into a layer",
}
_INSTEAD: Final = "use method = 'dynamic-int8', 'weight-only-int8' or 'float16'"
_REWRITES: Final[dict[type, str]] = {
    nn.LayerNorm: f"use BatchNorm2d, which folds into the convolution; in a transformer {_INSTEAD}"
}


def _refuse(model: nn.Module) -> None:
    """Name the layer for which no plan can hold the network, before an operator on the way to it is named."""
    for name, module in model.named_modules():
        for kind, reason in _REFUSED.items():
            if isinstance(module, kind):
                what = f"{type(module).__name__} has no integer form: {reason}"
                raise UnsupportedOperatorError(
                    what, where=f"layer '{name or 'forward'}'", fix=_REWRITES.get(kind, _INSTEAD)
                )


def trace(model: nn.Module, example: Tensor) -> FloatGraph:
    """Return the operations of a model, traced on one input in evaluation mode; the model is unchanged.

    The input is [1, C, H, W], or a series [1, C, L], which becomes a map [1, C, 1, L].

    Raises:
        ModelError: The input's shape does not fit, control flow depends on data, a parameter is not finite, or the
            model has more than one input or output.
        UnsupportedOperatorError: An operator that no plan can express; names the layer and a rewrite.
    """
    _refuse(model)
    program = _exported(model, example)
    signature = program.graph_signature
    paths = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = {name: program.state_dict[path].detach() for name, path in paths.items() if path in program.state_dict}
    constants |= {n: program.constants[p] for n, p in signature.inputs_to_lifted_tensor_constants.items()}
    constants |= {n: program.constants[p] for n, p in paths.items() if p in program.constants}
    for name, path in paths.items():
        if not torch.isfinite(constants[name]).all():
            raise ModelError("holds NaN or an infinity", where=f"parameter '{path}'", fix="train the model again")
    if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
        what = f"{len(signature.user_inputs)} inputs and {len(signature.user_outputs)} outputs"
        raise ModelError(what, where="model", fix="take one tensor and return the logits only")
    reader = Reader(constants, HANDLERS)
    for node in program.graph.nodes:
        if node.op == "call_function":
            reader.read(node)
    output = signature.user_outputs[0]
    shape = canonical(tuple(example.shape[1:]))
    return FloatGraph(signature.user_inputs[0], shape, reader.alias.get(output, output), tuple(reader.operations))
