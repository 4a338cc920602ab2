# SPDX-License-Identifier: Apache-2.0
"""``strop export check MODEL --target T``: will this target take the file, and if not, why not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from export.check.file import CheckReport
    from export.edgetpu.preflight import TpuReport

__all__ = ["check"]

_KIB = 1024


def check(
    model: Annotated[Path, typer.Argument(help="A .tflite or .onnx file, ours or another's.", show_default=False)],
    *,
    target: Annotated[str, typer.Option(help="Name of the target, or the path of its TOML file.")] = "rpi4",
    runtime: Annotated[int | None, typer.Option(min=10, max=14, help="Aim at an older Edge TPU runtime.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a model file against a target: format, operators, runtimes, memory, and what an Edge TPU would map."""
    from edge_contract import targets
    from export.check.file import check_file

    report = check_file(model, targets.load(target), runtime=runtime)
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
    else:
        _show(report)
    if report.is_refused:
        raise typer.Exit(1)


def _show(report: "CheckReport") -> None:
    for line in _lines(report):
        typer.echo(line)
    if report.quantized:
        typer.echo(_quantized_line(report.quantized))
    if report.tpu:
        _show_operators(report.quantized or report.tpu)
    for warning in report.warnings:
        typer.echo(f"warning: {warning}")
    for refusal in report.refusals:
        typer.echo(f"refused: {refusal}")
    typer.echo(f"{report.target}: {'refused' if report.is_refused else 'takes the file'}")


def _quantized_line(tpu: "TpuReport") -> str:
    cut = tpu.first_cut()
    rest = f"; first left to the CPU: {cut.index} {cut.kind}" if cut else ""
    total = len(tpu.operators)
    return f"as int8 with fixed sizes, {tpu.mapped} of {total} operators would run on the Edge TPU{rest}; shown so:"


def _lines(report: "CheckReport") -> Iterator[str]:
    count = sum(count for _, _, count in report.operators)
    yield f"{report.file}: {report.format}, {report.size} bytes, {report.precision}, {count} operators"
    for answer in report.runtimes:
        detail = f": {answer.detail}" if answer.detail else ""
        yield f"{answer.name} {answer.versions}: {answer.verdict}{detail}"
    if report.memory:
        used = report.memory
        yield (
            f"memory: weights {_size(used.weights_bytes + used.persistent_bytes)}, activations "
            f"{_size(used.arena_bytes)}, most at operator {used.at_operator} {used.peak_kind}"
        )
    if report.tpu:
        yield from _tpu_lines(report.tpu, report)


def _tpu_lines(tpu: "TpuReport", report: "CheckReport") -> Iterator[str]:
    from export.edgetpu.preflight import NOTE

    total = len(tpu.operators)
    yield f"Edge TPU, runtime {tpu.runtime} ({NOTE}); confidence {tpu.confidence}"
    yield f"Number of operations that will run on Edge TPU: {tpu.mapped}"
    yield f"Number of operations that will run on CPU: {total - tpu.mapped}"
    yield f"{100 * tpu.mapped_macs:.1f} % of the multiplications run on the Edge TPU"
    cache, cut = tpu.cache, tpu.first_cut()
    if tpu.mapped:
        yield f"On-chip memory used for caching model parameters: {_size(cache.cached_bytes)} ({cache.colour})"
        yield f"Off-chip memory used for streaming uncached model parameters: {_size(cache.streamed_bytes)}"
    if cut is not None and tpu.mapped:
        yield f"first operator left to the CPU: {cut.index} {cut.kind}, {cut.status} ({cut.detail})"
    if report.log is None:
        yield "edgetpu_compiler is not on PATH: not compared with it"
    elif report.log.failure:
        yield f"edgetpu_compiler {report.log.version}: {report.log.failure}"
    elif report.comparison is not None:
        same = report.comparison
        yield f"edgetpu_compiler {report.log.version}: agrees on {same.agreeing} of {same.operators} operators"
        yield from (f"  {difference}" for difference in same.differences)


def _size(count: int) -> str:
    """Bytes in the compiler's units.

    Example:
        >>> _size(512), _size(81920), _size(3 << 20)
        ('512.00B', '80.00KiB', '3.00MiB')
    """
    if count < _KIB:
        return f"{count:.2f}B"
    return f"{count / _KIB:.2f}KiB" if count < _KIB * _KIB else f"{count / _KIB / _KIB:.2f}MiB"


def _show_operators(tpu: "TpuReport") -> None:
    """The compiler's table of operators, with our notes: one row per operator, status, note and advice."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("Operator", "Count", "Status", "Verdict", "Note"):
        table.add_column(name, overflow="fold", no_wrap=name in ("Operator", "Count", "Verdict"))
    for row in _rows(tpu):
        table.add_row(*row)
    Console(soft_wrap=False, highlight=False).print(table)


def _rows(tpu: "TpuReport") -> Iterator[tuple[str, ...]]:
    """Group operators alike in everything but their place; the first of a group gives its details."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    notes: dict[tuple[Any, ...], str] = {}
    for operator in tpu.operators:
        key = (operator.kind, operator.status, operator.verdict, operator.advice)
        groups.setdefault(key, []).append(operator.index)
        notes.setdefault(key, operator.detail)
    for key, indices in groups.items():
        kind, status, verdict, advice = key
        place = f"operator {indices[0]}" + (" and others" if len(indices) > 1 else "")
        note = f"{place}: {notes[key]}" if notes[key] else ""
        yield kind, str(len(indices)), status, verdict, "; ".join(part for part in (note, advice) if part)
