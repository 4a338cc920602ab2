# SPDX-License-Identifier: Apache-2.0
"""A .onnx file in ONNX Runtime with nothing around it: inputs and outputs in arrays that the session is bound to."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.bare import Bare, Slot, refused, sized
from benchmarks.plan import BenchPlan
from edge_agent.runner.runtimes import onnx as agent
from edge_contract.errors import RuntimeAdapterError

__all__ = ["open_onnx", "profiled", "shares"]

Array = NDArray[Any]
_SUFFIX: Final = "ExecutionProvider"
_TYPES: Final = {"float": "float32", "double": "float64"}


def open_onnx(plan: BenchPlan, dtype: str = "") -> Bare:
    """Load a file with the options that the agent uses; raises as ``open_bare`` does."""
    session, options = _session(plan, dtype)
    inputs = tuple(Slot(i.name, sized(i.shape, plan.batch), _dtype(i.type)) for i in session.get_inputs())
    batch = plan.batch if inputs and inputs[0].shape[:1] == (plan.batch,) else 1
    providers = tuple(name.removesuffix(_SUFFIX) for name in session.get_providers())
    place, invoke, fetch = _bound(session, inputs)
    if batch > 1 and not _runs(invoke):
        return open_onnx(replace(plan, batch=1), dtype)
    flags: dict[str, Any] = {"intra_op_threads": plan.threads, "inter_op_threads": 1, "allow_spinning": False}
    flags["optimisation"] = str(options.graph_optimization_level).rpartition(".")[2]
    flags |= {"exact_int8": agent.wants_precision(dtype), "build": _build()}
    delegated = 0.0 if providers == ("CPU",) else None
    return Bare(
        inputs, place, invoke, fetch, "onnxruntime", agent.version(), providers, delegated, batch, flags, native=session
    )


def _runs(invoke: Callable[[], object]) -> bool:
    """Tell whether a batch goes through: a file may leave its first dimension open and yet hold a fixed reshape."""
    try:
        invoke()
    except Exception:  # ONNX Runtime's errors share no base class but RuntimeError or Exception
        return False
    return True


def _build() -> str:
    """Return what ONNX Runtime says of its own build: wheels of one version may differ."""
    import onnxruntime

    tell = getattr(onnxruntime, "get_build_info", None)
    return " ".join(str(tell()).split())[:200] if tell is not None else ""


def _session(plan: BenchPlan, dtype: str, profile: str = "") -> tuple[Any, Any]:
    options = agent.options_for(plan.threads, dtype)
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    try:
        return agent.start(Path(plan.artefact), options, plan.delegate or "cpu"), options
    except RuntimeAdapterError as error:
        if "refuses the file" in error.what:
            raise refused(plan, agent.version(), error.__cause__ or error) from error  # type: ignore[arg-type]
        raise


def _dtype(kind: str) -> str:
    """Return numpy's name of a type.

    Example:
        >>> _dtype("tensor(float)"), _dtype("tensor(uint8)")
        ('float32', 'uint8')
    """
    name = kind.removeprefix("tensor(").removesuffix(")")
    return _TYPES.get(name, name)


def _bound(session: Any, inputs: Sequence[Slot]) -> tuple[Any, Any, Any]:
    """Return what places, runs and fetches, by arrays that the session reads and writes.

    Outputs of a size that only a run tells are made by the runtime in each run; the binding asks for them by name.
    """
    held = {slot.name: np.zeros(slot.shape, slot.dtype) for slot in inputs}
    binding = session.io_binding()
    for name, array in held.items():
        binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")
    arrays = [held[slot.name] for slot in inputs]

    def place(values: Sequence[Array]) -> None:
        for array, value in zip(arrays, values, strict=True):
            array[...] = value

    return place, partial(session.run_with_iobinding, binding), binding.copy_outputs_to_cpu


def profiled(plan: BenchPlan, dtype: str, prefix: str) -> Any:
    """Return a session that writes ONNX Runtime's own profile to ``PREFIX…json`` when it ends."""
    return _session(plan, dtype, prefix)[0]


def shares(plan: BenchPlan, dtype: str, values: Sequence[Array]) -> dict[str, float]:
    """Return provider → share of the nodes that it ran, from ONNX Runtime's own profile of one run.

    The list of providers says who was asked; only the profile says who took what. A run of its own, never a timed one.

    Raises:
        RuntimeAdapterError: The runtime refuses the file.
    """
    with tempfile.TemporaryDirectory(prefix="strop-bench-") as folder:
        session = profiled(plan, dtype, f"{folder}/profile")
        names = [one.name for one in session.get_inputs()]
        session.run(None, dict(zip(names, values, strict=True)))
        events = json.loads(Path(session.end_profiling()).read_text())
    ran = [e["args"]["provider"] for e in events if e.get("cat") == "Node" and "provider" in e.get("args", {})]
    return {name.removesuffix(_SUFFIX): ran.count(name) / len(ran) for name in dict.fromkeys(ran)}
