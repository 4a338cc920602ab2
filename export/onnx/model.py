# SPDX-License-Identifier: Apache-2.0
"""What an ONNX file holds, as frozen values; ``export.onnx.reader`` makes them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from export.onnx.constant import Constant

__all__ = ["OnnxGraph", "OnnxModel", "OnnxNode", "OnnxValue"]


@dataclass(frozen=True)
class OnnxNode:
    """One node; ``attributes`` holds ints, floats, texts, lists of them, Constants and graphs."""

    kind: str
    name: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class OnnxValue:
    """A graph's input or output: its type, and its shape with 0 for a free dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class OnnxGraph:
    """Nodes in the file's order; ``inputs`` without those that are constants."""

    nodes: tuple[OnnxNode, ...]
    constants: Mapping[str, Constant]
    inputs: tuple[OnnxValue, ...]
    outputs: tuple[OnnxValue, ...]

    def everywhere(self) -> Iterator[OnnxNode]:
        """Yield every node, those of inner graphs too."""
        for node in self.nodes:
            yield node
            for value in node.attributes.values():
                for graph in value if isinstance(value, tuple) else (value,):
                    if isinstance(graph, OnnxGraph):
                        yield from graph.everywhere()


@dataclass(frozen=True)
class OnnxModel:
    """A whole file.

    Attributes:
        size: Of the file, in bytes.
        ir_version, producer: As the file says.
        opsets: Domain → version; the domain of ONNX itself is "".
        metadata: Free texts.
        graph: The graph.
        functions: Nodes of the functions that the file defines for itself.
    """

    size: int
    ir_version: int
    producer: str
    opsets: Mapping[str, int]
    metadata: Mapping[str, str]
    graph: OnnxGraph
    functions: tuple[OnnxNode, ...]

    @cached_property
    def outside(self) -> tuple[str, ...]:
        """Names of further files that hold weights."""
        return tuple(sorted({c.file for c in self.graph.constants.values() if c.file}))
