# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime's own profile (Chrome trace events), read into the common form.

It cannot be switched on after the warm-up (onnxruntime#15980), so the first runs are dropped here: the events of a run
lie before the ``model_run`` that closes it. Nodes are those after optimisation, one entry each run. The optimiser's
suffixes are taken off a node's name, so that it is the file's again.
"""

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks.ops.kinds import of_onnx, plain_name
from benchmarks.ops.onnx_file import Node, nodes
from benchmarks.ops.profile import OpTime, Profile, middle
from benchmarks.ops.turns import digest, drawn, in_turns
from edge_contract.errors import MeasurementError, MissingDependencyError

__all__ = ["parse", "profile"]

_OPTIMISED: Final = "optimised.onnx"
_KERNEL: Final = "_kernel_time"
_CPU: Final = "CPUExecutionProvider"
_WHOLE: Final = ("model_run", "SequentialExecutor::Execute")
_TYPES: Final = {"float": "float32", "double": "float64"}


def profile(path: Path, *, threads: int = 1, runs: int = 100, drop: int = 10, provider: str = "cpu") -> Profile:
    """Profile an ONNX file in this process.

    Args:
        path: The file.
        threads: Of one inference.
        runs: Profiled runs that count.
        drop: First ones that do not.
        provider: An execution provider by its short name.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        MeasurementError: It refuses the file, or its profile cannot be read.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("onnxruntime is not installed", fix="pip install 'strop[agent-onnx]'") from error
    with tempfile.TemporaryDirectory(prefix="strop-ops-") as folder:
        try:
            plain = _session(onnxruntime, path, threads, provider, None)
            profiled = _session(onnxruntime, path, threads, provider, Path(folder))
            feed = {node.name: _input(node) for node in plain.get_inputs()}
            whole, with_it = in_turns(lambda: plain.run(None, feed), lambda: profiled.run(None, feed), runs, drop)
            events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
            file = nodes(Path(folder) / _OPTIMISED)
        except (MeasurementError, OSError, ValueError):
            raise
        except Exception as error:  # ONNX Runtime's share no base class
            raise MeasurementError(f"onnxruntime cannot run it: {str(error).strip()[:200]}", where=str(path)) from error
    ops, inside, total = parse(events, drop, file)
    return Profile(
        model=path.name,
        sha256=digest(path),
        runtime="onnxruntime",
        version=str(onnxruntime.__version__),
        threads=threads,
        source="onnxruntime",
        whole_us=whole,
        profiled_us=with_it,
        inside_us=inside,
        sum_us=total,
        runs=runs,
        dropped=drop,
        resolution_us=1.0,
        ops=ops,
    )


def parse(
    events: Iterable[Mapping[str, Any]], drop: int, file: Mapping[str, Node] | None = None
) -> tuple[tuple[OpTime, ...], float, float]:
    """Return the operators in the order of running, and two medians: the runtime's own whole run, and the runs' sums.

    Args:
        events: Of the profile's file, in its order.
        drop: First runs that do not count.
        file: The nodes of the optimised file by their names.

    Raises:
        MeasurementError: No run is left, or the runs are not alike.
    """
    runs = list(_runs(events))[drop:]
    if not runs:
        raise MeasurementError(f"the profile has no run behind the first {drop}", where="onnxruntime")
    if len({tuple(_key(event) for event in nodes) for nodes, _ in runs}) > 1:
        what = "the runs executed different operators, so there is no median"
        raise MeasurementError(what, where="onnxruntime", fix="a model with If or Loop: profile its parts")
    times = [middle([int(nodes[k]["dur"]) for nodes, _ in runs]) for k in range(len(runs[0][0]))]
    total = sum(times) or 1.0
    known = {plain_name(name): node for name, node in (file or {}).items()} | dict(file or {})
    ops = [_op(k, event, times[k], times[k] / total, len(runs)) for k, event in enumerate(runs[0][0])]
    found = tuple(
        _named(op, str(event["name"]).removesuffix(_KERNEL), known) for op, event in zip(ops, runs[0][0], strict=True)
    )
    sums = [sum(int(event["dur"]) for event in nodes) for nodes, _ in runs]
    return found, middle([whole for _, whole in runs]), middle(sums)


def _runs(events: Iterable[Mapping[str, Any]]) -> Iterable[tuple[list[Mapping[str, Any]], int]]:
    """Cut the events at the end of each run; yield (node events in the order of their start, the run's time)."""
    nodes: list[Mapping[str, Any]] = []
    inside: int | None = None
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_KERNEL):
            nodes.append(event)
        elif event.get("name") == _WHOLE[1]:
            inside = int(event["dur"])
        elif event.get("name") == _WHOLE[0]:
            yield sorted(nodes, key=lambda node: int(node["ts"])), int(event["dur"]) if inside is None else inside
            nodes, inside = [], None


def _key(event: Mapping[str, Any]) -> tuple[str, str]:
    return str(event["name"]), str(event.get("args", {}).get("op_name", ""))


def _op(index: int, event: Mapping[str, Any], time_us: float, share: float, runs: int) -> OpTime:
    words = event.get("args", {})
    native, inputs = str(words.get("op_name", "?")), _shapes(words.get("input_type_shape", ()))
    return OpTime(
        index=index,
        kind=of_onnx(native, inputs),
        native=native,
        name=plain_name(str(event["name"])),
        inputs=inputs,
        outputs=_shapes(words.get("output_type_shape", ())),
        median_us=time_us,
        share=round(share, 5),
        runs=runs,
        delegated=str(words.get("provider", _CPU)) not in ("", _CPU),
    )


def _named(op: OpTime, name: str, file: Mapping[str, Node]) -> OpTime:
    """Name a node that the optimiser made by what it computes, and know its kind by its weights."""
    node = file.get(name)
    if node is None:
        return op
    first = op.inputs[0] if op.inputs else ()
    kind = of_onnx(op.native, (first, node.weights)) if op.kind in ("conv", "depthwise") and node.weights else op.kind
    return replace(op, name=op.name or node.output, kind=kind)


def _shapes(told: Any) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of ``[{"float": [1, 3]}, …]``; older versions leave the key out."""
    if not isinstance(told, list | tuple):
        return ()
    return tuple(tuple(int(size) for size in shape) for tensor in told for shape in tensor.values())


def _session(ort: Any, path: Path, threads: int, provider: str, folder: Path | None) -> Any:
    """Open the file as the agent's runner does; with a folder, profile and optimised file are written there."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if folder is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
        options.optimized_model_filepath = str(folder / _OPTIMISED)
    here = {name.removesuffix("ExecutionProvider").lower(): name for name in ort.get_available_providers()}
    if provider.lower() not in here:
        raise MeasurementError(f"no execution provider '{provider}'", where=str(path), fix=f"one of {', '.join(here)}")
    return ort.InferenceSession(str(path), options, providers=list(dict.fromkeys([here[provider.lower()], _CPU])))


def _input(node: Any) -> Any:
    kind = str(node.type).removeprefix("tensor(").removesuffix(")")
    return drawn(tuple(size if isinstance(size, int) else 1 for size in node.shape), _TYPES.get(kind, kind))
