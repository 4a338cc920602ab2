# SPDX-License-Identifier: Apache-2.0
"""Store the rounded weights of an ONNX file in fewer bits: codes and scales, which ONNX Runtime unpacks when it loads.

``compress.quantize.weight_only`` rounds the weights of a module; the exporter then writes them as float32, transposed,
in another order of gates, or with a BatchNorm folded into their rows. Here each initializer that layers read is looked
at for what it is: if its rows are whole multiples of their scales, codes and scales replace it, exactly. Behind them
stand Cast, Mul, Reshape and Transpose of constants: ONNX Runtime computes those once, when it loads the file, and runs
float layers. A DequantizeLinear there would be taken for MatMulNBits, which rounds *activations* to int8 too, without
being asked: a relative error of .005 where .0000004 is meant.

Embeddings are unpacked for the rows that are looked up. A weight whose rows a folded BatchNorm has scaled is rounded to
float16 again: there alone the file is not the simulation, by some .0002.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from compress.quantize.blocks import HIGH, Rounded, round_weight
from export.packed import pack4

__all__ = ["store_rounded"]

_LAYERS: Final = ("Conv", "ConvTranspose", "Gather", "Gemm", "GRU", "LSTM", "MatMul", "RNN")
_SMALLEST: Final = 256  # numbers; below, the operators that unpack take more than the weights
_SHORTEST: Final = 4  # columns; below, the scales take more than the codes save
_NEAR: Final = 2.0**-20  # of a weight's largest code: some float32 roundings, where the exporter scaled rows

Floats = NDArray[np.float32]


@dataclass
class _File:
    onnx: Any
    proto: Any
    form: str
    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, values: NDArray[Any]) -> str:
        self.initializers.append(self.onnx.numpy_helper.from_array(np.array(values, order="C"), name))
        return name

    def codes(self, name: str, codes: NDArray[np.int8]) -> str:
        if self.form != "weight-only-int4":
            return self.constant(name, codes)
        made = self.onnx.helper.make_tensor(
            name, self.onnx.TensorProto.INT4, codes.shape, pack4(codes).tobytes(), raw=True
        )
        self.initializers.append(made)
        return name


def store_rounded(proto: Any, form: str, *, tables_only: bool = False) -> tuple[str, ...]:
    """Change a model in place so that rounded weights take the form's bits; return the names of those left in float32.

    Args:
        proto: An ``onnx.ModelProto``; of opset 21 for ``weight-only-int4``.
        form: ``float16``, ``weight-only-int8`` or ``weight-only-int4``.
        tables_only: Change the tables of Gather alone.
    """
    import onnx

    file, left = _File(onnx, proto, form), []
    readers = _readers(proto)
    for initializer in list(proto.graph.initializer):
        kinds = {node.op_type for node in readers.get(initializer.name, ())}
        if not _is_weight(onnx, initializer, kinds) or (tables_only and kinds != {"Gather"}):
            continue
        values = onnx.numpy_helper.to_array(initializer)
        if _replace(file, initializer.name, values, readers[initializer.name]):
            proto.graph.initializer.remove(initializer)
        else:
            left.append(initializer.name)
    proto.graph.initializer.extend(file.initializers)
    kept = [*file.nodes, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    return tuple(left)


def _readers(proto: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def _is_weight(onnx: Any, initializer: Any, kinds: set[str]) -> bool:
    """Weights of layers; not the biases of recurrent ones, which have two dimensions too."""
    least = 3 if kinds & {"GRU", "LSTM", "RNN"} else 2
    is_float = initializer.data_type == onnx.TensorProto.FLOAT and len(initializer.dims) >= least
    return is_float and int(np.prod(initializer.dims)) >= _SMALLEST and bool(kinds & set(_LAYERS))


def _replace(file: _File, name: str, values: Floats, readers: list[Any]) -> bool:
    if file.form == "float16":
        return _halved(file, name, values)
    for rows, is_turned in _views(values):
        rounded = _recovered(rows, file.form) if rows.shape[1] >= _SHORTEST else None
        if rounded is None:
            continue
        if not is_turned and file.form == "weight-only-int8" and all(_is_lookup(node, name) for node in readers):
            _table(file, name, rounded, values.shape, readers)
        else:
            _unpacked(file, name, rounded, values.shape, is_turned=is_turned)
        return True
    return False


def _halved(file: _File, name: str, values: Floats) -> bool:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        return False
    file.node("Cast", [file.constant(f"{name}/half", half)], name, to=file.onnx.TensorProto.FLOAT)
    return True


def _views(values: Floats) -> Iterator[tuple[Floats, bool]]:
    """Yield weights as rows [rows, columns]: as they stand, transposed, or of all directions of a recurrent layer."""
    yield values.reshape(len(values), -1), False
    if values.ndim == 2:
        yield np.ascontiguousarray(values.T), True
    elif values.ndim == 3:
        yield values.reshape(-1, values.shape[2]), False


def _recovered(rows: Floats, form: str) -> Rounded | None:
    """Return the codes of rows that are whole multiples of their scales, else None."""
    rounded = round_weight(torch.from_numpy(np.array(rows)), form)
    again = rounded.weight(torch.Size(rows.shape)).numpy()
    size = rounded.codes.shape[2]
    error = np.abs(again - rows).reshape(*rounded.codes.shape[:2], size).max(axis=2)
    allowed = rounded.scales.numpy()[:, :, 0] * HIGH[form] * _NEAR
    return rounded if bool((error <= allowed).all()) else None


def _unpacked(file: _File, name: str, rounded: Rounded, shape: tuple[int, ...], *, is_turned: bool) -> None:
    codes, scales = rounded.codes.numpy(), rounded.scales.numpy()
    float32 = file.onnx.TensorProto.FLOAT
    real = file.node("Cast", [file.codes(f"{name}/codes", codes)], f"{name}/wide", to=float32)
    scaled = file.node("Mul", [real, file.constant(f"{name}/scales", scales)], f"{name}/blocks")
    size = file.constant(f"{name}/shape", np.array(shape[::-1] if is_turned else shape, np.int64))
    if not is_turned:
        file.node("Reshape", [scaled, size], name)
        return
    file.node("Transpose", [file.node("Reshape", [scaled, size], f"{name}/rows")], name, perm=[1, 0])


def _is_lookup(node: Any, name: str) -> bool:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    return node.op_type == "Gather" and node.input[0] == name and axis == 0


def _table(file: _File, name: str, rounded: Rounded, shape: tuple[int, ...], readers: list[Any]) -> None:
    """An embedding stays int8 in memory: only the rows that are looked up become float."""
    table = file.constant(f"{name}/codes", rounded.codes.numpy().reshape(shape))
    scales = file.constant(f"{name}/scales", rounded.scales.numpy().reshape(-1, 1))
    nodes = file.proto.graph.node
    for number, node in enumerate(readers):
        rows, stem = node.input[1], f"{name}/{number}"
        place = list(nodes).index(node)
        made = _File(file.onnx, file.proto, file.form)
        wide = made.node("Gather", [table, rows], f"{stem}/codes")
        real = made.node("Cast", [wide], f"{stem}/real", to=file.onnx.TensorProto.FLOAT)
        made.node("Mul", [real, made.node("Gather", [scales, rows], f"{stem}/scales")], node.output[0])
        del nodes[place]
        for offset, one in enumerate(made.nodes):
            nodes.insert(place + offset, one)
