# SPDX-License-Identifier: Apache-2.0
"""LiteRT's profile, operators inside of XNNPACK included, read into the common form.

The whole without a profiler is the interpreter's, which is what the agent runs; the profiler belongs to the compiled
model, the same kernels behind another door. XNNPACK cuts each duration down to whole microseconds, so half of one is
added back (``middle``); the interpreter's own operators tell differences of cut moments, which need nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.ops.align import align
from benchmarks.ops.kinds import of_tflite, of_xnnpack
from benchmarks.ops.litert_c import DEFAULT, DELEGATE_OPERATOR, DELEGATE_PROFILED, OPERATOR, CompiledModel, Event
from benchmarks.ops.profile import OpTime, Profile, middle
from benchmarks.ops.turns import digest, drawn, in_turns
from edge_contract.errors import MeasurementError, MissingDependencyError

__all__ = ["Written", "parse", "profile", "written"]

_RUN: Final = "Invoke"
_INNER: Final = (DELEGATE_OPERATOR, DELEGATE_PROFILED)
_ROOM: Final = 400_000
"""Events that LiteRT's buffer holds without dropping the first ones: it has 2 to the 19."""


@dataclass(frozen=True)
class Written:
    """An operator as the file has it, before any delegate: its TFLite name, its first output's name, its shapes."""

    native: str
    name: str
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]


def profile(path: Path, *, threads: int = 1, runs: int = 100, drop: int = 10) -> Profile:
    """Profile a TFLite file in this process; a fault in LiteRT ends the process.

    Args:
        path: The file.
        threads: Of one inference.
        runs: Profiled runs that count; fewer when the events would not fit into LiteRT's buffer.
        drop: First ones that do not.

    Raises:
        MissingDependencyError: LiteRT is not installed, or has no profiler.
        MeasurementError: It refuses the file, or its events make no sense.
    """
    try:
        import ai_edge_litert
        from ai_edge_litert import interpreter
    except ImportError as error:
        raise MissingDependencyError(
            "ai-edge-litert is not installed", fix="pip install 'strop[agent-litert]'"
        ) from error
    file = written(interpreter, path)
    compiled = CompiledModel(path, threads)
    plain = _plain(interpreter, path, threads)
    for k, tensor in enumerate(compiled.inputs):
        compiled.write(k, drawn(tensor.shape, tensor.dtype).tobytes())
    compiled.start()
    compiled.run()
    per_run = max(1, len(compiled.stop()))
    runs = max(1, min(runs, _ROOM // per_run - drop))
    compiled.start()
    whole, with_it = in_turns(plain.invoke, compiled.run, runs, drop)
    ops, inside, total = parse(compiled.stop(), file, drop)
    return Profile(
        model=path.name,
        sha256=digest(path),
        runtime="litert",
        version=str(ai_edge_litert.__version__),
        threads=threads,
        source="litert",
        whole_us=whole,
        profiled_us=with_it,
        inside_us=inside,
        sum_us=total,
        runs=runs,
        dropped=drop,
        resolution_us=1.0,
        ops=ops,
    )


def parse(events: Iterable[Event], file: Sequence[Written], drop: int) -> tuple[tuple[OpTime, ...], float, float]:
    """Return the operators in the order of running, and two medians: the runtime's own whole run, and the runs' sums.

    Raises:
        MeasurementError: No run is left, or the runs are not alike.
    """
    runs = list(_runs(events))[drop:]
    if not runs:
        raise MeasurementError(f"the profile has no run behind the first {drop}", where="litert")
    if len({tuple((event.tag, event.kind, event.index) for event in ops) for ops, _ in runs}) > 1:
        what = "the runs executed different operators, so there is no median"
        raise MeasurementError(what, where="litert", fix="a model with If or While: profile its parts")
    first = runs[0][0]
    times = [middle([ops[k].elapsed_us for ops, _ in runs], floored=first[k].kind in _INNER) for k in range(len(first))]
    total = sum(times) or 1.0
    places = _places(first, file)
    found = [
        _op((k, first[k]), times[k], times[k] / total, len(runs), None if place is None else file[place])
        for k, place in enumerate(places)
    ]
    cut = sum(event.kind in _INNER for event in first) / 2  # half a microsecond of each that was cut down
    sums = [sum(event.elapsed_us for event in ops) for ops, _ in runs]
    return tuple(found), middle([whole for _, whole in runs]), middle(sums) + cut


def _runs(events: Iterable[Event]) -> Iterable[tuple[list[Event], int]]:
    """Cut the events at the begin of each run; yield (operators in their order, the run's own time)."""
    ops: list[Event] = []
    whole = -1
    for event in events:
        if event.kind == DEFAULT and event.tag == _RUN:
            if whole >= 0:
                yield _without_shells(ops), whole
            ops, whole = [], event.elapsed_us
        elif event.kind in (OPERATOR, *_INNER) and whole >= 0:
            ops.append(event)
    if whole >= 0:
        yield _without_shells(ops), whole


def _without_shells(ops: list[Event]) -> list[Event]:
    """Leave out the node of a delegate when the operators inside of it are told: it would count twice."""
    if not any(event.kind in _INNER for event in ops):
        return ops
    return [event for event in ops if event.kind in _INNER or "delegate" not in event.tag.lower()]


def _places(ops: Sequence[Event], file: Sequence[Written]) -> list[int | None]:
    """Return for each event the place of its operator in the file: by its number, or by the order of the kinds."""
    if all(event.kind == OPERATOR for event in ops):
        return [event.index if event.index < len(file) else None for event in ops]
    kinds = [_kind(event) for event in ops]
    return align(kinds, [of_tflite(operator.native) for operator in file])


def _kind(event: Event) -> str:
    return of_xnnpack(event.tag) if event.kind in _INNER else of_tflite(event.tag)


def _op(event: tuple[int, Event], time_us: float, share: float, runs: int, operator: Written | None) -> OpTime:
    index, found = event
    return OpTime(
        index=index,
        kind=_kind(found),
        native=found.tag,
        name=operator.name if operator else "",
        inputs=operator.inputs if operator else (),
        outputs=operator.outputs if operator else (),
        median_us=time_us,
        share=round(share, 5),
        runs=runs,
        delegated=found.kind in _INNER,
    )


def written(module: Any, path: Path) -> list[Written]:
    """Return the file's operators, asked of an interpreter without delegates.

    Raises:
        MeasurementError: The interpreter refuses the file.
    """
    try:
        kind = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        asked = module.Interpreter(model_path=str(path), experimental_op_resolver_type=kind)
        tensors = {int(detail["index"]): detail for detail in asked.get_tensor_details()}
        operators = asked._get_ops_details()  # noqa: SLF001  # there is no public question
    except (RuntimeError, ValueError, AttributeError) as error:
        raise MeasurementError(f"the interpreter refuses it: {error}", where=str(path)) from error
    return [_written(operator, tensors) for operator in operators]


def _written(operator: Mapping[str, Any], tensors: Mapping[int, Mapping[str, Any]]) -> Written:
    ins, outs = ([int(k) for k in operator[way] if int(k) in tensors] for way in ("inputs", "outputs"))
    shapes = [tuple(tuple(int(size) for size in tensors[k]["shape"]) for k in way) for way in (ins, outs)]
    return Written(str(operator["op_name"]), str(tensors[outs[0]]["name"]) if outs else "", shapes[0], shapes[1])


def _plain(module: Any, path: Path, threads: int) -> Any:
    """Return an interpreter as the agent opens it, its inputs filled."""
    try:
        made = module.Interpreter(model_path=str(path), num_threads=threads)
        made.allocate_tensors()
        for detail in made.get_input_details():
            shape = tuple(int(size) for size in detail["shape"])
            made.set_tensor(detail["index"], drawn(shape, detail["dtype"].__name__))
        made.invoke()
    except (RuntimeError, ValueError) as error:
        raise MeasurementError(f"the interpreter refuses it: {error}", where=str(path)) from error
    return made
