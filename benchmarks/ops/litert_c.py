# SPDX-License-Identifier: Apache-2.0
"""LiteRT's profiler through its C library: the wheel's Python offers none, its ``libLiteRt.so`` does.

A compiled model whose runtime options say ``enable_profiling`` owns a profiler. Between start and stop it notes every
operator, those inside of XNNPACK too, with begin and length in whole microseconds. The calls, structures and numbers
here are those of the public headers ``litert/c/*.h``. Whether the library at hand fits them is found out by what it
answers (``stop`` refuses what makes no sense), and a crash stays in the child process that this runs in.
"""

import ctypes
from ctypes import Structure, byref, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import MeasurementError, MissingDependencyError

__all__ = ["CompiledModel", "Event", "Tensor", "library"]

DEFAULT, OPERATOR, DELEGATE_OPERATOR, DELEGATE_PROFILED = 1, 2, 4, 8
_KINDS: Final = {1 << bit for bit in range(9)}
_CPU: Final = 1
_WRITE: Final = 1
_OPTIONS_NAME: Final = b"runtime_options_string"
_OPTIONS: Final = b"enable_profiling = true\n"
_CPU_NAME: Final = b"xnnpack"
_DTYPES: Final = {1: "float32", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8", 10: "float16"}


class _Layout(Structure):
    """``LiteRtLayout``: rank in the lower 7 bits."""

    _fields_ = (("rank", c_uint32), ("dimensions", c_int32 * 8), ("strides", c_uint32 * 8))


class _TensorType(Structure):
    """``LiteRtRankedTensorType``."""

    _fields_ = (("element", c_int), ("layout", _Layout))


class _Memory(Structure):
    """``LiteRtMemoryUsage``."""

    _fields_ = (("total", c_size_t), ("in_use", c_size_t), ("private", c_size_t))


class _Event(Structure):
    """``ProfiledEventData``."""

    _fields_ = (
        ("tag", c_char_p),
        ("kind", c_int),
        ("start_us", c_uint64),
        ("elapsed_us", c_uint64),
        ("before", _Memory),
        ("after", _Memory),
        ("index", c_uint64),
        ("extra", c_uint64),
        ("source", c_int),
    )


@dataclass(frozen=True)
class Event:
    """One entry of the profiler: what ran, its kind (see the constants), the operator's index, its length."""

    tag: str
    kind: int
    index: int
    elapsed_us: int


@dataclass(frozen=True)
class Tensor:
    """One input or output of the model."""

    shape: tuple[int, ...]
    dtype: str
    size: int


def library() -> ctypes.CDLL:
    """Return the C library of the installed LiteRT.

    Raises:
        MissingDependencyError: LiteRT is not installed, or its library has no profiler.
    """
    try:
        import ai_edge_litert
    except ImportError as error:
        raise MissingDependencyError(
            "ai-edge-litert is not installed", fix="pip install 'strop[agent-litert]'"
        ) from error
    path = Path(str(ai_edge_litert.__file__)).parent / "libLiteRt.so"
    try:
        found = ctypes.CDLL(str(path))
        _ = (found.LiteRtCompiledModelGetProfiler, found.LiteRtGetProfilerEvents, found.LiteRtCreateOpaqueOptions)
    except (OSError, AttributeError) as error:
        what = f"this LiteRT has no profiler that a program can reach ({error})"
        raise MissingDependencyError(what, where=str(path), fix="pip install 'ai-edge-litert>=2.3'") from error
    return found


class CompiledModel:
    """A model file that LiteRT has compiled for the CPU with profiling, and its buffers. Lives as long as the process.

    Args:
        path: The file.
        threads: Of one inference.

    Raises:
        MeasurementError: A call is refused; the message has its name and status.
        MissingDependencyError: See ``library``.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._library, self._where = library(), str(path)
        environment, model, options = c_void_p(), c_void_p(), c_void_p()
        self._call("LiteRtCreateEnvironment", c_int(0), None, byref(environment))
        self._call("LiteRtCreateModelFromFile", environment, str(path).encode(), byref(model))
        self._call("LiteRtCreateOptions", byref(options))
        self._call("LiteRtSetOptionsHardwareAccelerators", options, c_int(_CPU))
        for name, text in ((_OPTIONS_NAME, _OPTIONS), (_CPU_NAME, b"num_threads = %d\n" % threads)):
            self._call("LiteRtAddOpaqueOptions", options, self._words(name, text))
        self._model, self._profiler, signature = c_void_p(), c_void_p(), c_void_p()
        self._call("LiteRtCreateCompiledModel", environment, model, options, byref(self._model))
        self._call("LiteRtCompiledModelGetProfiler", self._model, byref(self._profiler))
        self._call("LiteRtGetModelSignature", model, c_size_t(0), byref(signature))
        self.inputs, self._inputs = self._tensors("Input", environment, signature)
        self.outputs, self._outputs = self._tensors("Output", environment, signature)

    def write(self, number: int, data: bytes) -> None:
        """Fill an input; raises MeasurementError when it has another size."""
        address = c_void_p()
        if len(data) > self.inputs[number].size:
            raise MeasurementError(f"{len(data)} bytes for an input of {self.inputs[number].size}", where=self._where)
        buffer = c_void_p(self._inputs[number])  # an element of the array comes out as a plain number
        self._call("LiteRtLockTensorBuffer", buffer, byref(address), c_int(_WRITE))
        ctypes.memmove(address, data, len(data))
        self._call("LiteRtUnlockTensorBuffer", buffer)

    def run(self) -> None:
        """Compute the outputs."""
        ins, outs = self._inputs, self._outputs
        self._call(
            "LiteRtRunCompiledModel", self._model, c_size_t(0), c_size_t(len(ins)), ins, c_size_t(len(outs)), outs
        )

    def start(self) -> None:
        """Begin to note events; what was noted before is forgotten."""
        self._call("LiteRtStartProfiler", self._profiler)

    def stop(self) -> list[Event]:
        """End, and return the events.

        Raises:
            MeasurementError: They make no sense: the library's structure is another one than ours.
        """
        self._call("LiteRtStopProfiler", self._profiler)
        count = c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, byref(count))
        events = (_Event * count.value)()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, events)
        odd = [event.kind for event in events if event.kind not in _KINDS or event.source not in (0, 1, 2)]
        if odd or not count.value:
            what = f"{count.value} events, {len(odd)} of no known kind"
            raise MeasurementError(what, where=self._where, fix="this version of LiteRT is not known here")
        return [
            Event(event.tag.decode("utf-8", "replace"), event.kind, event.index, event.elapsed_us) for event in events
        ]

    def _call(self, name: str, *words: Any) -> None:
        status = getattr(self._library, name)(*words)
        if status:
            fix = "LiteRT's compiled model does not run every file: 'litert-benchmark' says why"
            raise MeasurementError(f"{name} answers {status}", where=self._where, fix=fix)

    def _words(self, name: bytes, text: bytes) -> c_void_p:
        """Return options as LiteRT takes them: a text, which it frees by the C library's own ``free``."""
        libc = ctypes.CDLL(None)
        libc.strdup.restype, libc.strdup.argtypes = c_void_p, [c_char_p]
        made, free = c_void_p(), ctypes.cast(libc.free, c_void_p)
        self._call("LiteRtCreateOpaqueOptions", name, c_void_p(libc.strdup(text)), free, byref(made))
        return made

    def _fix(self, way: str, number: int, layout: _Layout) -> None:
        """Make free dimensions 1, in the model too; an output then has the shape that follows from that."""
        rank = layout.rank & 0x7F
        if all(size > 0 for size in layout.dimensions[:rank]):
            return
        for d in range(rank):
            layout.dimensions[d] = max(1, layout.dimensions[d])
        if way == "Input":
            words = (c_size_t(0), c_size_t(number), layout.dimensions, c_size_t(rank))
            self._call("LiteRtCompiledModelResizeInputTensor", self._model, *words)

    def _tensors(self, way: str, environment: c_void_p, signature: c_void_p) -> tuple[list[Tensor], Any]:
        """Return what the tensors of one way are, and an array of their buffers."""
        count = c_size_t()
        self._call(f"LiteRtGetNumSignature{way}s", signature, byref(count))
        buffers, found = (c_void_p * count.value)(), []
        for k in range(count.value):
            tensor, requirements, kind, size, buffer = c_void_p(), c_void_p(), _TensorType(), c_size_t(), c_void_p()
            self._call(f"LiteRtGetSignature{way}TensorByIndex", signature, c_size_t(k), byref(tensor))
            self._call("LiteRtGetRankedTensorType", tensor, byref(kind))
            self._fix(way, k, kind.layout)
            ask = f"LiteRtGetCompiledModel{way}BufferRequirements"
            self._call(ask, self._model, c_size_t(0), c_size_t(k), byref(requirements))
            self._call("LiteRtGetTensorBufferRequirementsBufferSize", requirements, byref(size))
            make = "LiteRtCreateManagedTensorBufferFromRequirements"
            self._call(make, environment, byref(kind), requirements, byref(buffer))
            shape = tuple(kind.layout.dimensions[: kind.layout.rank & 0x7F])
            found.append(Tensor(shape, _DTYPES.get(kind.element, ""), size.value))
            buffers[k] = buffer
        return found, buffers
