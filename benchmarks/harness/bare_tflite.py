# SPDX-License-Identifier: Apache-2.0
"""A .tflite file in LiteRT, in tflite-runtime, or on an Edge TPU, with nothing around it."""

import importlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.bare import Bare, Slot, refused
from benchmarks.plan import BenchPlan
from edge_agent.runner.runtimes import runtime_version

__all__ = ["open_tflite"]

Array = NDArray[Any]
_MODULES = {"litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}


def open_tflite(plan: BenchPlan) -> Bare:
    """Load a file; raises as ``open_bare`` does."""
    version = runtime_version(plan.runtime)
    kind, name = _interpreter_class(plan)
    try:
        interpreter = kind(model_path=plan.artefact, num_threads=plan.threads)
        batch = _resized(interpreter, plan.batch)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError, SystemError) as error:
        raise refused(plan, version, error) from error
    details = interpreter.get_input_details()
    inputs = tuple(Slot(str(d["name"]), tuple(map(int, d["shape"])), np.dtype(d["dtype"]).name) for d in details)
    outputs = [int(d["index"]) for d in interpreter.get_output_details()]
    delegated = _delegated(interpreter)
    taken = name or ("XNNPACK" if delegated else "")
    return Bare(
        inputs,
        _placer(interpreter, [int(d["index"]) for d in details]),
        interpreter.invoke,
        partial(_fetch, interpreter.get_tensor, outputs),
        plan.runtime,
        version,
        tuple(word for word in (taken, "CPU") if word),
        delegated,
        batch,
        {"operators": _operators(interpreter)},
        partial(_arena_kb, interpreter, Path(plan.artefact)),
        interpreter,
    )


def _interpreter_class(plan: BenchPlan) -> tuple[Any, str]:
    """Return the interpreter's class, with the Edge TPU's delegate in it where the plan wants it, and its name."""
    if plan.runtime != "edgetpu":
        return importlib.import_module(_MODULES[plan.runtime]).Interpreter, ""
    from edge_agent.runner.runtimes.edgetpu import with_delegate

    return with_delegate(Path(plan.artefact), plan.delegate)[0], "EdgeTPU"


def _resized(interpreter: Any, batch: int) -> int:
    """Make room for a batch where the file lets us; return how many inputs one run takes."""
    if batch == 1:
        return 1
    try:
        for detail in interpreter.get_input_details():
            interpreter.resize_tensor_input(detail["index"], [batch, *map(int, detail["shape"][1:])])
        interpreter.allocate_tensors()
        return batch if _is_whole(interpreter, batch) else _as_before(interpreter)
    except (RuntimeError, ValueError):
        return _as_before(interpreter)


def _is_whole(interpreter: Any, batch: int) -> bool:
    """Tell whether the outputs grew with the inputs: a reshape to a fixed size inside the file keeps them at one."""
    return all(int(d["shape"][0]) == batch for d in interpreter.get_output_details() if len(d["shape"]))


def _as_before(interpreter: Any) -> int:
    for detail in interpreter.get_input_details():
        interpreter.resize_tensor_input(detail["index"], [1, *map(int, detail["shape"][1:])])
    return 1


def _placer(interpreter: Any, indices: list[int]) -> Any:
    put = interpreter.set_tensor
    if len(indices) == 1:
        (only,) = indices
        return lambda values: put(only, values[0])

    def place(values: Sequence[Array]) -> None:
        for index, value in zip(indices, values, strict=True):
            put(index, value)

    return place


def _fetch(get: Any, indices: list[int]) -> list[Array]:
    return [get(index) for index in indices]


def _nodes(interpreter: Any) -> list[dict[str, Any]]:
    """Return the operators as the interpreter lists them: those of the file, then one for each part of a delegate."""
    try:
        return list(interpreter._get_ops_details())  # noqa: SLF001  # there is no public question
    except (AttributeError, KeyError, ValueError):
        return []


def _is_delegate(node: dict[str, Any]) -> bool:
    return "DELEGATE" in str(node["op_name"]).upper()


def _operators(interpreter: Any) -> int:
    return sum(not _is_delegate(node) for node in _nodes(interpreter))


def _delegated(interpreter: Any) -> float:
    """Return the share of the file's operators that a delegate runs.

    The interpreter does not say which. An operator went over when a delegate's node gives its results, or when they
    have no memory any more: only what the interpreter itself runs needs room in its arena.
    """
    nodes = _nodes(interpreter)
    given = {int(i) for node in nodes if _is_delegate(node) for i in node["outputs"]}
    own = [node for node in nodes if not _is_delegate(node)]
    if not given or not own:
        return 0.0
    gone = sum(all(int(i) in given or not _has_memory(interpreter, int(i)) for i in node["outputs"]) for node in own)
    return gone / len(own)


def _has_memory(interpreter: Any, index: int) -> bool:
    return _span(interpreter, index) is not None


def _span(interpreter: Any, index: int) -> tuple[int, int] | None:
    """Return where a tensor lies, (first byte, byte after the last), or None where it has no memory."""
    try:
        view = interpreter.tensor(index)()
        start = int(view.ctypes.data)
    except (ValueError, RuntimeError, AttributeError):
        return None
    return (start, start + int(view.nbytes)) if start and view.nbytes else None


def _arena_kb(interpreter: Any, file: Path) -> int:
    """Return how many kilobytes the interpreter's own tensors take; what a delegate holds for itself is not in it.

    Weights are read where the file is mapped, so only what lies elsewhere counts; overlapping room, which the planner
    gives to tensors that do not live at the same time, counts once.
    """
    mapped = _mapped(file)
    indices = [int(detail["index"]) for detail in interpreter.get_tensor_details()]
    spans = sorted(span for i in indices if (span := _span(interpreter, i)) and not _inside(span, mapped))
    total, end = 0, 0
    for low, high in spans:
        total, end = total + max(high - max(low, end), 0), max(end, high)
    return -(-total // 1024)


def _inside(span: tuple[int, int], ranges: list[tuple[int, int]]) -> bool:
    return any(low <= span[0] < high for low, high in ranges)


def _mapped(file: Path) -> list[tuple[int, int]]:
    """Return the address ranges at which this process has mapped a file."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    name = str(file.resolve())
    words = [line.split(maxsplit=5) for line in lines if line.endswith(name)]
    return [(int(w[0].split("-")[0], 16), int(w[0].split("-")[1], 16)) for w in words]
