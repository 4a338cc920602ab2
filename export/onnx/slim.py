# SPDX-License-Identifier: Apache-2.0
"""Take out of an exported ONNX model what only its exporter needed, and give tensors and nodes short names.

Torch's exporter leaves a hundred kilobytes and more of stack traces, module paths and shapes: often more than the
weights of a small net. The shapes (``value_info``) are worse than useless: for constants they survive
transformations that change them, and ``quantize_dynamic`` then fails with "Inferred shape and existing shape differ".
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["slim"]

_TEXTS: Final = ("doc_string", "metadata_props")


def slim(model: Any, dimension: str = "batch") -> Any:
    """Change an ``onnx.ModelProto`` in place and return it; inputs, outputs and parameters keep their names.

    Args:
        model: Any model; what it computes stays the same.
        dimension: Name for the free first dimension of the inputs, wherever it comes again in an output.
    """
    _clear(model, _TEXTS)
    graph = model.graph
    for part in _graphs(graph):
        _clear(part, (*_TEXTS, "value_info", "quantization_annotation"))
        for item in (*part.node, *part.initializer, *part.input, *part.output):
            _clear(item, _TEXTS)
    _rename(graph)
    firsts = [value.type.tensor_type.shape.dim[:1] for value in graph.input]
    batches = {size.dim_param for sizes in firsts for size in sizes} - {""}
    for value in (*graph.input, *graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in batches:
                size.dim_param = dimension
    return model


def _clear(message: Any, fields: tuple[str, ...]) -> None:
    known = message.DESCRIPTOR.fields_by_name
    for field in fields:
        if field in known:  # some came with later versions of onnx
            message.ClearField(field)


def _graphs(graph: Any) -> Iterator[Any]:
    """Yield a graph and the bodies of its loops and branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _graphs(inner)


def _rename(graph: Any) -> None:
    """Number the tensors and nodes of the outermost graph; bodies keep their own names, and follow ours."""
    public = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    inside = {name for part in _graphs(graph) for node in part.node for name in node.output}
    taken = public | inside
    made = [name for node in graph.node for name in node.output if name and name not in public]
    free = (name for name in (f"t{i}" for i in range(2 * len(taken) + len(made) + 1)) if name not in taken)
    names = dict(zip(made, free, strict=False))
    for part in _graphs(graph):
        for node in part.node:
            _replace(node.input, names)
            _replace(node.output, names)
        for value in part.output:
            value.name = names.get(value.name, value.name)
    for index, node in enumerate(graph.node):
        node.name = f"n{index}"  # not empty: the quantizer makes names from it


def _replace(field: Any, names: Mapping[str, str]) -> None:
    for index, name in enumerate(field):
        if name in names:
            field[index] = names[name]
