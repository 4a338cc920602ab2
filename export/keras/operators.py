# SPDX-License-Identifier: Apache-2.0
"""Is a TFLite file that TensorFlow made what was asked for: names, types, sizes, operators?"""

from collections import Counter
from typing import Final

from edge_contract.errors import ModelError, UnsupportedOperatorError
from edge_contract.targets import Target
from export.keras.faults import FLOAT_INSTEAD, SAVED_MODEL
from export.tflite.encoder import encode
from export.tflite.reader import Operator, Subgraph, TFLiteModel, read
from export.tflite.walk import decode

__all__ = ["examine", "named"]

_LOOPS: Final = ("WHILE", "IF")
_CONVERSIONS: Final = ("QUANTIZE", "DEQUANTIZE")
_VARIABLES: Final = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE")


def named(data: bytes, *, where: str) -> bytes:
    """Return a file whose input and outputs are called as in its signature, not ``StatefulPartitionedCall:0``."""
    root, _ = decode(data, where)
    for signature in root["signature_defs"] or []:
        tensors = root["subgraphs"][signature["subgraph_index"]]["tensors"]
        for entry in (*(signature["inputs"] or []), *(signature["outputs"] or [])):
            tensors[entry["tensor_index"]]["name"] = entry["name"]
    return encode(root, where)


def examine(data: bytes, target: Target, precision: str, *, where: str) -> tuple[str, ...]:
    """Return what a person should know about a file's operators.

    Raises:
        UnsupportedOperatorError: An operator that no runtime of ours has, a loop in an int8 file, or operators that
            stay in float in an int8 file for an accelerator.
        ModelError: Input or output are not of the type that was asked for, or not of a fixed size.
    """
    model = read(data, where)
    _check_operators(model, where)
    _check_ends(model.main, precision, where)
    notes = _loops(model, precision, where)
    if precision == "int8":
        notes += _unlisted(model, target) + _leftovers(model.main, target, where)
    return tuple(notes)


def _operators(model: TFLiteModel) -> list[Operator]:
    return [op for graph in model.subgraphs for op in graph.operators]


def _check_operators(model: TFLiteModel, where: str) -> None:
    strange = sorted({op.kind for op in _operators(model) if op.is_custom or op.kind in _VARIABLES})
    if strange:
        what = f"operators that no runtime of ours has: {', '.join(strange)}"
        raise UnsupportedOperatorError(what, where=where, fix=SAVED_MODEL)


def _check_ends(graph: Subgraph, precision: str, where: str) -> None:
    for index in (*graph.inputs, *graph.outputs):
        tensor = graph.tensors[index]
        if tensor.dtype != precision:
            what = f"tensor '{tensor.name}' is {tensor.dtype}, not {precision}"
            raise ModelError(what, where=where, fix=FLOAT_INSTEAD)
        if -1 in tensor.shape_signature:
            what = f"tensor '{tensor.name}' has a size that is known only while it runs"
            raise ModelError(what, where=where, fix="use no loop or branch on data")


def _loops(model: TFLiteModel, precision: str, where: str) -> list[str]:
    found = Counter(op.kind for op in _operators(model) if op.kind in _LOOPS)
    if not found:
        return []
    text = ", ".join(f"{count} {kind}" for kind, count in found.items())
    if precision == "int8":
        # The converter keeps a loop's state in float and quantizes around it: neither fast nor exact.
        fix = f"use no loop or branch on data, or {FLOAT_INSTEAD}"
        raise UnsupportedOperatorError(f"control flow ({text}) has no int8 form", where=where, fix=fix)
    return [f"control flow ({text}): its time may depend on data, and no accelerator runs it"]


def _unlisted(model: TFLiteModel, target: Target) -> list[str]:
    allowed = target.integers["tflite"].operators
    found = sorted({(op.kind, op.version) for op in _operators(model)})
    strange = [f"{kind} version {version}" for kind, version in found if version > allowed.get(kind, 0)]
    if not strange:
        return []
    return [f"not in the list of target '{target.name}': {', '.join(strange)}; its older runtimes may refuse the file"]


def _leftovers(graph: Subgraph, target: Target, where: str) -> list[str]:
    """Operators of an int8 file that compute in float: the converter leaves them without a word."""
    kinds = Counter(op.kind for op in graph.operators if _is_float(graph, op))
    if not kinds:
        return []
    text = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    if target.memory.parameter_cache_kib:
        fix = f"replace these layers, or choose a target without accelerator: '{target.name}' runs integers only"
        raise UnsupportedOperatorError(f"operators that stay in float: {text}", where=where, fix=fix)
    return [f"operators that stay in float: {text}; each costs a conversion on either side"]


def _is_float(graph: Subgraph, op: Operator) -> bool:
    return op.kind not in _CONVERSIONS and any(graph.tensors[index].dtype == "float32" for index in op.outputs)
