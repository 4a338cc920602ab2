# SPDX-License-Identifier: Apache-2.0
"""A torch module on its way to ONNX, in silence: its own answers, its exported program, the program's ONNX form."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edge_contract.errors import DataError, MissingDependencyError, ModelError, UsageError
from export.module.faults import first_line, unfixed, untraceable, untranslatable
from export.onnx.slim import slim

__all__ = ["Evidence", "Inputs", "answered", "evaluating", "missing", "onnx_form", "quietly"]

CHECKED: Final = 64
"""Inputs that answers are compared on."""

_MOVES: Final = frozenset({"Concat", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})
_SPARE_BYTES: Final = 65536

Inputs = Tensor | Sequence[Tensor]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Inputs with the module's own answers.

    Attributes:
        inputs: One tensor [N, ...] per argument of ``forward``.
        answers: One array [N, ...] per output.
        batched: The batch is to stay free; otherwise it is 1.
    """

    inputs: tuple[Tensor, ...]
    answers: tuple[NDArray[Any], ...]
    batched: bool


def answered(model: nn.Module, inputs: Inputs, where: str, *, batched: bool) -> Evidence:
    """Return at most 64 inputs with what the module answers.

    Raises:
        DataError: No inputs, or not as many for each argument.
        ModelError: The module fails on them, or returns something else than tensors.
    """
    found = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    counts = {len(tensor) if tensor.ndim else 0 for tensor in found}
    if len(counts) != 1 or not min(counts):
        shapes = ", ".join(str(list(tensor.shape)) for tensor in found) or "none"
        raise DataError(f"inputs of shape {shapes}", where=where, fix="give as many for each argument, batch first")
    samples = tuple(tensor[:CHECKED].contiguous() for tensor in found)
    return Evidence(samples, _answers(model, samples, batched=batched), batched)


def _answers(model: nn.Module, samples: tuple[Tensor, ...], *, batched: bool) -> tuple[NDArray[Any], ...]:
    """Return torch's outputs [N, ...]: of one batch, or one by one where the batch is 1."""
    count = len(samples[0])
    groups = [slice(0, count)] if batched else [slice(i, i + 1) for i in range(count)]
    try:
        with quietly():
            # Nested outputs are flattened as the exporter flattens them.
            rows = [pytree.tree_leaves(model(*(tensor[group] for tensor in samples))) for group in groups]
    except Exception as error:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in samples)
        what = f"cannot be run on inputs of shape {shapes}: {first_line(error)}"
        fix = "give the inputs that the model expects, preprocessed, batch first"
        raise ModelError(what, where="model", fix=fix) from error
    for leaf in rows[0]:
        _check_output(leaf, groups[0].stop)
    return tuple(np.concatenate([row[i].cpu().numpy() for row in rows]) for i in range(len(rows[0])))


def _check_output(leaf: Any, count: int) -> None:
    if not isinstance(leaf, Tensor):
        raise ModelError("returns something else than tensors", where="model", fix="return tensors only")
    if not leaf.ndim or len(leaf) != count:
        what = f"returns a tensor of shape {list(leaf.shape)} for {count} inputs"
        raise ModelError(what, where="model", fix="return tensors with the batch first, or leave this one out")


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every submodule gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    with contextlib.suppress(NotImplementedError):  # a module out of torch.export is in its final mode already
        model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """The exporters print progress, stack traces and advice to every stream; our answer is one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def onnx_form(model: nn.Module, evidence: Evidence, outputs: Sequence[str], opset: int) -> Any:
    """Return a module as a slim ``onnx.ModelProto``.

    Args:
        model: In evaluation mode.
        evidence: Its inputs and answers.
        outputs: Names of the outputs, or none.
        opset: Of the default domain.

    Raises:
        ModelError, UnsupportedOperatorError: It cannot be traced or translated; names the line.
        UsageError: Not one name per output.
    """
    names = _named("input", len(evidence.inputs)), _output_names(outputs, len(evidence.answers))
    program = _traced(model, evidence)
    proto = _translated(program, names, opset)
    _check_sizes(proto)
    made = next(entry.version for entry in proto.opset_import if not entry.domain)
    if made != opset:  # its converter between opsets gives up in silence
        what = f"the exporter could not write opset {opset}, only {made}"
        raise ModelError(what, where="model", fix=f"give --opset {made}")
    return slim(proto)


def _named(stem: str, count: int) -> list[str]:
    return [stem] if count == 1 else [f"{stem}_{i}" for i in range(count)]


def _output_names(given: Sequence[str], count: int) -> list[str]:
    if not given:
        return _named("output", count)
    if len(given) != count or len(set(given)) != count:
        raise UsageError(f"{len(given)} names for {count} outputs", fix="give each output a name of its own")
    return list(given)


def _traced(model: nn.Module, evidence: Evidence) -> Any:
    # An example of two: torch.export takes a dimension of one for a constant.
    count = 2 if evidence.batched else 1
    example = tuple(torch.cat([tensor[:1]] * count) for tensor in evidence.inputs)
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple({0: batch} for _ in example) if evidence.batched else None
    try:
        with quietly():
            return torch.export.export(model, example, dynamic_shapes=shapes)
    except Exception as error:
        raise untraceable(error) from error


def _translated(program: Any, names: tuple[list[str], list[str]], opset: int) -> Any:
    try:
        import onnxscript  # noqa: F401  # torch's exporter needs it, and says so at length
    except ImportError as error:
        raise missing(error) from error
    try:
        with quietly():
            made = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=opset,
                input_names=names[0],
                output_names=names[1],
                verbose=False,
            )
    except Exception as error:
        raise untranslatable(error, program) from error
    if made is None:
        raise ModelError("the ONNX exporter gave no model", where="model")
    return _folded(made)


def _folded(program: Any) -> Any:
    """Return an exporter's model with weights in the order in which its operators read them.

    Torch keeps the gates of a recurrent layer in another order than ONNX, and its exporter writes the reordering of all
    but the smallest weights into the graph: it is then done at every load, and no quantizer sees a weight there.
    """
    from onnxscript import optimizer

    before = program.model_proto
    with quietly():
        optimizer.fold_constants(program.model, should_fold=lambda node: node.op_type in _MOVES or None)
        optimizer.remove_unused_nodes(program.model)
    after = program.model_proto
    # A weight that is also read as it was, such as an embedding tied to the output, would be there twice.
    return after if _weight_bytes(after) <= _weight_bytes(before) + _SPARE_BYTES else before


def _weight_bytes(proto: Any) -> int:
    return sum(tensor.ByteSize() for tensor in proto.graph.initializer)


def _check_sizes(proto: Any) -> None:
    """Refuse outputs with a size that is neither fixed nor the batch."""
    batch = {value.type.tensor_type.shape.dim[0].dim_param for value in proto.graph.input}
    for value in proto.graph.output:
        free = {size.dim_param for size in value.type.tensor_type.shape.dim if size.dim_param}
        if not free <= batch:
            raise unfixed(value.name)


def missing(error: ImportError) -> MissingDependencyError:
    """Return the error for a package that the exporter needs."""
    fix = 'pip install "strop[workstation]"'
    return MissingDependencyError(f"the package '{error.name}' is not installed", fix=fix)
