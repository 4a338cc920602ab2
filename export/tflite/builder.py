# SPDX-License-Identifier: Apache-2.0
"""Build a TFLite flatbuffer from tensors and operators, with the schema that ships in ai-edge-litert."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import MissingDependencyError

__all__ = ["ALIGNMENT", "FileBuilder", "file_builder"]

ALIGNMENT = 16  # the schema's force_align of Buffer.data, which the generated Python code forgets
_FILE_ID = b"TFL3"


class FileBuilder:
    """Collects one subgraph; ``finish`` gives the file's bytes, the same for the same calls.

    Raises:
        ImportError: ai-edge-litert or flatbuffers is not installed.
    """

    def __init__(self) -> None:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        self._flatbuffers, self._schema = flatbuffers, schema
        self._buffers: list[Any] = [schema.BufferT()]  # buffer 0 is empty by convention: activations point to it
        self._tensors: list[Any] = []
        self._codes: dict[tuple[str, int], int] = {}
        self._operators: list[Any] = []
        self._zeros: dict[tuple[int, int], _Zeros] = {}

    def padding(self, scheme: str) -> int:
        """Return the schema's number of ``SAME`` or ``VALID``."""
        return int(getattr(self._schema.Padding, scheme))

    def activation(self, name: str) -> int:
        """Return the schema's number of a fused activation such as ``RELU6``."""
        return int(getattr(self._schema.ActivationFunctionType, name))

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: str,
        data: NDArray[Any] | None = None,
        *,
        scales: NDArray[np.float32] | None = None,
        zero_point: int = 0,
        axis: int = 0,
    ) -> int:
        """Add a tensor and return its index; ``data`` makes it a constant.

        ``kind`` is INT8, INT4 (``data`` from ``pack4``), INT32 or FLOAT32.
        """
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape = name.encode(), np.array(shape, np.int32)
        tensor.type = getattr(self._schema.TensorType, kind)
        tensor.buffer = 0 if data is None else self._buffer(data)
        if scales is not None:
            zeros = self._zeros.setdefault((len(scales), zero_point), _Zeros(len(scales), zero_point))
            dimension = axis if len(scales) > 1 else 0
            tensor.quantization = _Quantization(self._schema, np.asarray(scales, np.float32), zeros, dimension)
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def shape(self, index: int) -> tuple[int, ...]:
        """Return the shape of a tensor, with batch."""
        return tuple(int(size) for size in self._tensors[index].shape)

    def _buffer(self, data: NDArray[Any]) -> int:
        raw = np.ascontiguousarray(data, data.dtype.newbyteorder("<")).tobytes()
        self._buffers.append(_AlignedBuffer(self._schema, raw))
        return len(self._buffers) - 1

    def operator(
        self, kind: str, version: int, inputs: list[int], output: int, options: str = "", **fields: Any
    ) -> None:
        """Add an operator of a version of a builtin ``kind``, with the named options table."""
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault((kind, version), len(self._codes))
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        if options:
            table = getattr(self._schema, f"{options}T")()
            for key, value in fields.items():
                setattr(table, key, value)
            operator.builtinOptions = table
            operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, options)
        self._operators.append(operator)

    def finish(
        self,
        inputs: dict[str, int],
        outputs: dict[str, int],
        metadata: dict[str, bytes],
        *,
        full_names: bool = False,
    ) -> bytes:
        """Return the file: one subgraph, one signature ``serving_default``, and the named metadata buffers.

        Tensors inside get short names, unless ``full_names``: a tenth of a small file would else be names.
        """
        schema = self._schema
        shown = {*inputs.values(), *outputs.values()}
        for index, tensor in enumerate(self._tensors):
            if index not in shown and not full_names:
                tensor.name = f"{index:x}".encode()
        model = schema.ModelT()
        model.version, model.description = 3, b"strop"
        model.metadata = [self._metadata(name, data) for name, data in metadata.items()]
        model.operatorCodes = [self._operator_code(kind, version) for kind, version in self._codes]
        graph = schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = b"main", self._tensors, self._operators
        graph.inputs = np.array(list(inputs.values()), np.int32)
        graph.outputs = np.array(list(outputs.values()), np.int32)
        model.subgraphs, model.buffers = [graph], self._buffers
        model.signatureDefs = [self._signature(inputs, outputs)]
        for zeros in self._zeros.values():
            zeros.offset = None  # of an earlier file
        builder = self._flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=_FILE_ID)
        return bytes(builder.Output())

    def _metadata(self, name: str, data: bytes) -> Any:
        entry = self._schema.MetadataT()
        entry.name, entry.buffer = name.encode(), self._buffer(np.frombuffer(data, np.uint8))
        return entry

    def _operator_code(self, kind: str, version: int) -> Any:
        code = self._schema.OperatorCodeT()
        code.builtinCode = getattr(self._schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # read by runtimes before 2.4
        code.version = version
        return code

    def _signature(self, inputs: dict[str, int], outputs: dict[str, int]) -> Any:
        signature = self._schema.SignatureDefT()
        signature.signatureKey = b"serving_default"
        signature.inputs = [self._tensor_map(name, index) for name, index in inputs.items()]
        signature.outputs = [self._tensor_map(name, index) for name, index in outputs.items()]
        return signature

    def _tensor_map(self, name: str, index: int) -> Any:
        entry = self._schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), index
        return entry


def file_builder() -> FileBuilder:
    """Return an empty file.

    Raises:
        MissingDependencyError: The package ai-edge-litert or flatbuffers is not installed.
    """
    try:
        return FileBuilder()
    except ImportError as error:
        fix = 'pip install "strop[workstation]"'
        raise MissingDependencyError("ai-edge-litert or flatbuffers is not installed", fix=fix) from error


class _Zeros:
    """The zero points of tensors: 8 bytes a channel in the schema, so that equal ones are written once and shared."""

    def __init__(self, count: int, value: int) -> None:
        self._values = np.full(count, value, np.int64)
        self.offset: int | None = None

    def write(self, builder: Any) -> int:
        """Return the vector's place in the file; the first caller writes it."""
        if self.offset is None:
            self.offset = int(builder.CreateNumpyVector(self._values))
        return self.offset


class _Quantization:
    """QuantizationParameters with shared zero points; packs itself like the schema's QuantizationParametersT."""

    def __init__(self, schema: Any, scales: NDArray[np.float32], zeros: _Zeros, dimension: int) -> None:
        self._schema, self._scales, self._zeros, self._dimension = schema, scales, zeros, dimension

    def Pack(self, builder: Any) -> Any:  # noqa: N802  # the schema's name
        scales, zeros = builder.CreateNumpyVector(self._scales), self._zeros.write(builder)
        self._schema.QuantizationParametersStart(builder)
        self._schema.QuantizationParametersAddScale(builder, scales)
        self._schema.QuantizationParametersAddZeroPoint(builder, zeros)
        self._schema.QuantizationParametersAddQuantizedDimension(builder, self._dimension)
        return self._schema.QuantizationParametersEnd(builder)


class _AlignedBuffer:
    """A Buffer whose bytes start at a multiple of ``ALIGNMENT``; packs itself like the schema's BufferT."""

    def __init__(self, schema: Any, data: bytes) -> None:
        self._schema, self._data = schema, data

    def Pack(self, builder: Any) -> Any:  # noqa: N802  # the schema's name
        builder.StartVector(1, len(self._data), ALIGNMENT)
        builder.head -= len(self._data)
        builder.Bytes[builder.head : builder.head + len(self._data)] = self._data
        data = builder.EndVector()
        self._schema.BufferStart(builder)
        self._schema.BufferAddData(builder, data)
        return self._schema.BufferEnd(builder)
