# SPDX-License-Identifier: Apache-2.0
"""Any torch module to float ONNX, and to ONNX with int8 weights and dynamic activations, checked in ONNX Runtime.

For what no plan can hold: recurrent layers, transformers, anything that ``torch.export`` can trace. The file is judged
against the module's own answers on the caller's inputs; a wrong one is not left behind.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from compress.quantize.dynamic import DynamicInt8
from compress.quantize.layer_weights import duplicate
from compress.quantize.weight_only import FORMS, simulate
from edge_contract.errors import ModelError, UsageError
from export.module.check import SIMULATED, FloatOnnx, drafted, judged, placed, save
from export.module.faults import first_line
from export.module.rounded import store_rounded
from export.module.trace import Inputs, answered, evaluating, missing, onnx_form, quietly
from export.onnx.slim import slim

__all__ = ["OPSETS", "PRECISIONS", "FloatOnnx", "dynamic_int8", "export", "write_form"]

PRECISIONS: Final = ("float32", *FORMS)

OPSETS: Final = range(18, 22)
"""Below 18 torch's exporter translates by a converter that gives up easily; above 21 older runtimes refuse the file."""

EXTERNAL_BYTES: Final = 1_500_000_000
"""Weights above this go into a second file: one protobuf message holds less than 2 GiB."""

_WEIGHTED: Final = ("MatMul", "Gemm", "Attention", "LSTM")
"""What becomes int8: not Conv, whose dynamic form (ConvInteger) gained no time wherever it was measured.

Embeddings are stored by ``rounded``: the quantizer has one scale for the whole table, which errs three times more."""

_STAYS: Final = ("Conv", "ConvTranspose", "GRU", "RNN", "LSTM")


def export(
    model: nn.Module,
    inputs: Inputs,
    out: Path,
    *,
    opset: int = 18,
    dynamic_batch: bool = True,
    external_bytes: int = EXTERNAL_BYTES,
    outputs: Sequence[str] = (),
) -> FloatOnnx:
    """Write a module as float ONNX, prove it in ONNX Runtime, and say what it is; the module is unchanged.

    Args:
        model: Any module of tensors; it is run in evaluation mode.
        inputs: Real inputs [N, ...], one tensor per argument of ``forward``; answers are compared on the first 64.
        out: The file to write.
        opset: 18 to 21.
        dynamic_batch: Leave the batch free; otherwise it is 1.
        external_bytes: Weights of more bytes than this go into ``<out>.data``; 0 for always.
        outputs: Names; ``output`` (or ``output_0`` and so on) without.

    Raises:
        UsageError: Another opset, or as many names as there are no outputs.
        DataError: No inputs, unequal counts, or the file cannot be written.
        ModelError: The module cannot be traced: control flow depends on data, or a wrong shape; names the line.
        UnsupportedOperatorError: An operator without ONNX form; names the line and a rewrite.
        ParityError: ONNX Runtime answers otherwise than torch.
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = export(nn.Linear(3, 2), torch.ones(4, 3), Path(folder) / "x.onnx", outputs=("logits",))
        >>> made.inputs, made.outputs, made.operators
        ({'input': (0, 3)}, {'logits': (0, 2)}, {'Gemm': 1})
    """
    if opset not in OPSETS:
        raise UsageError(f"opset {opset}", where=str(out), fix=f"use {OPSETS.start} to {OPSETS.stop - 1}")
    with drafted(out) as draft:
        with evaluating(model), torch.no_grad():
            evidence = answered(model, inputs, str(out), batched=dynamic_batch)
            proto = onnx_form(model, evidence, outputs, opset)
        save(proto, draft, external_bytes)
        return placed(judged(draft, "float32", evidence), out)


def dynamic_int8(
    model: nn.Module,
    inputs: Inputs,
    out: Path,
    *,
    opset: int = 18,
    dynamic_batch: bool = True,
    external_bytes: int = EXTERNAL_BYTES,
    outputs: Sequence[str] = (),
) -> FloatOnnx:
    """Write a module with int8 weights; activations are quantized while it runs, each by its own range.

    For transformers and recurrent nets in ONNX Runtime: weights shrink to a quarter, and no calibration is needed. Of
    recurrent layers only LSTM has an int8 form; GRU stays float. Arguments and errors are those of ``export``; besides:

    Raises:
        ModelError: Nothing in the module can become int8, or the quantizer fails.
    """
    simulated = DynamicInt8(duplicate(model))
    with drafted(out) as draft:
        whole = draft.with_name("float.onnx")
        source = export(simulated.model, inputs, whole, opset=opset, dynamic_batch=dynamic_batch, outputs=outputs)
        with evaluating(model), torch.no_grad():
            evidence = answered(model, inputs, str(out), batched=dynamic_batch)
        save(_quantized(source), draft, external_bytes)
        made = judged(draft, "dynamic-int8", evidence)
        notes = (*_notes(made, source), _as_simulated(draft, simulated, inputs))
        return placed(replace(made, notes=notes), out)


def _as_simulated(draft: Path, simulated: nn.Module, inputs: Inputs) -> str:
    """Refuse a file that computes otherwise than the simulation whose accuracy was measured; one input at a time.

    Activations of a batch share one range, so that answers would depend on the batch.
    """
    with evaluating(simulated):
        evidence = answered(simulated, inputs, draft.name, batched=False)
    found = judged(draft, "dynamic-int8", evidence, limits=SIMULATED).fidelity
    return f"relative error to the simulation {max(one.relative_error for one in found.values()):.2g}"


def write_form(
    model: nn.Module,
    inputs: Inputs,
    out: Path,
    *,
    form: str,
    opset: int = 18,
    dynamic_batch: bool = True,
    external_bytes: int = EXTERNAL_BYTES,
    outputs: Sequence[str] = (),
) -> FloatOnnx:
    """Write a module in one of ``PRECISIONS``; arguments and errors are those of ``export``.

    Weight-only forms are judged against ``weight_only.simulate`` of the module, as float files are against the module;
    ``weight-only-int4`` is written in opset 21, the first that has int4.

    Raises:
        UsageError: No such form.
        UnsupportedOperatorError: No layer whose weights the form rounds.
    """
    options: dict[str, Any] = {"dynamic_batch": dynamic_batch, "external_bytes": external_bytes, "outputs": outputs}
    if form == "float32":
        return export(model, inputs, out, opset=opset, **options)
    if form == "dynamic-int8":
        return dynamic_int8(model, inputs, out, opset=opset, **options)
    simulated = simulate(model, form)
    with drafted(out) as draft, torch.no_grad():
        evidence = answered(simulated, inputs, str(out), batched=dynamic_batch)
        proto = onnx_form(simulated, evidence, outputs, 21 if form == "weight-only-int4" else opset)
        before = proto.ByteSize()
        left = store_rounded(proto, form)
        save(proto, draft, external_bytes)
        notes = [f"{before} bytes in float, {proto.ByteSize()} in {form}"]
        notes += [f"{len(left)} weights in float32"] if left else []
        return placed(replace(judged(draft, form, evidence), notes=tuple(notes)), out)


def _quantized(source: FloatOnnx) -> Any:
    """Return the ``onnx.ModelProto`` of a float file with int8 weights."""
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise missing(error) from error
    made = source.path.with_name("int8.onnx")
    try:
        with quietly():
            quantize_dynamic(
                source.path,
                made,
                op_types_to_quantize=list(_WEIGHTED),
                per_channel=True,
                weight_type=QuantType.QInt8,
                use_external_data_format=source.size > EXTERNAL_BYTES,
            )
            slimmed = slim(onnx.load_model(str(made)))
    except Exception as error:  # it raises whatever its shape inference raises
        what = f"cannot be quantized: {first_line(error)}"
        raise ModelError(what, where="model", fix="ship the float file") from error
    store_rounded(slimmed, "weight-only-int8", tables_only=True)
    return slimmed


def _notes(made: FloatOnnx, source: FloatOnnx) -> tuple[str, ...]:
    """Return what became of size and operators; refuse a file in which nothing became int8."""
    changed = [kind for kind in _WEIGHTED if made.operators.get(kind, 0) < source.operators.get(kind, 0)]
    if not changed:
        what = f"no operator with weights that can become int8 among {', '.join(source.operators)}"
        raise ModelError(what, where="model", fix="ship the float file, or quantize it with a recipe")
    notes = [f"{source.size} bytes in float, {made.size} in int8"]
    if made.size >= source.size:
        notes.append("the float file is smaller: ship that one")
    left = [f"{made.operators[kind]} {kind}" for kind in _STAYS if kind in made.operators]
    return (*notes, f"{', '.join(left)} in float") if left else tuple(notes)
