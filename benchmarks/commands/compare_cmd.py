# SPDX-License-Identifier: Apache-2.0
"""``strop bench compare``: two commands in pairs, two models by launches in turns, or two stored results."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_contract.errors import UsageError
from edge_contract.manifest import MANIFEST_NAME

if TYPE_CHECKING:
    from benchmarks.comparison.outcome import Outcome
    from benchmarks.comparison.turns import Turns

__all__ = ["FLOORS", "compare", "is_model"]

FLOORS = Path("noise-floors")
"""Folder of the boards' noise floors, where nothing else is said."""
_PAIRS = 30


def compare(
    a: Annotated[
        str, typer.Argument(help="The one to compare with: BUNDLE@RUNTIME, model file, result, or a command.")
    ],
    b: Annotated[str, typer.Argument(help="The other, in the same form.")],
    launches: Annotated[int, typer.Option(min=1, help="Of each model: processes, taken in turns A B B A.")] = 10,
    most: Annotated[int, typer.Option(min=0, help="Go on up to so many launches while it is undecided.")] = 0,
    runs: Annotated[int | None, typer.Option(help="Fewest measured runs of a launch.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Shortest measured time of a launch.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a runtime.")] = 1,
    mode: Annotated[str | None, typer.Option(help="bare, or realistic: the agent's own path.")] = None,
    data: Annotated[Path | None, typer.Option(help="Inputs of both models.")] = None,
    stage: Annotated[str, typer.Option(help="Which times count: total, invoke, preprocess …")] = "total",
    same_artefact: Annotated[
        bool, typer.Option("--same-artefact", help="Refuse unless both are the same bytes.")
    ] = False,
    fail: Annotated[
        bool, typer.Option("--fail-on-regression", help="Exit with 1 when the verdict is REGRESSION.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Keep each launch here; the same command goes on from it.")] = None,
    floors: Annotated[
        Path, typer.Option(envvar="STROP_NOISE_FLOORS", help="Folder of noise floors (strop bench aa).")
    ] = FLOORS,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="Time in pairs inside one process; commands always are.")
    ] = None,
    warmup: Annotated[int, typer.Option(min=0, help="Of pairs: untimed turns before the first.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare A with B and answer REGRESSION, IMPROVED or INCONCLUSIVE; quote the ratio with its interval.

    Two models (bundles or files) are launched in turns, and the launches are the sample. Two results (.json) of one
    board are compared as they were stored. Commands, and models with --pairs, are timed in pairs A B A B instead.
    """
    from benchmarks.comparison.stored import is_result, stored

    if pairs is not None or not (is_result(a) or is_model(a)) or not (is_result(b) or is_model(b)):
        _in_pairs(a, b, pairs or _PAIRS, warmup, threads, as_json=as_json)
        return
    words = ["strop", "bench", "compare", a, b]
    if is_result(a) != is_result(b):
        raise UsageError("a result and a model", where="strop bench compare", fix="give two results, or two models")
    if is_result(a):
        sides = stored(Path(a), Path(b), same_artefact=same_artefact)
        found = _judged((a, b), sides, stage, floors, words)
    else:
        from benchmarks.comparison.turns import Turns

        given = None if data is None else str(data)
        chosen = {"runs": runs, "seconds": seconds, "threads": threads, "mode": mode, "data": given}
        chosen["input"] = None if data is None else "real"
        turns = Turns(_plans(a, b, chosen, same_artefact=same_artefact), out, lambda line: typer.echo(line, err=True))
        words += [f"--launches={launches}", *_said(chosen), *([f"--stage={stage}"] if stage != "total" else [])]
        found = _launched((a, b), turns, (launches, most), stage, floors, words)
    typer.echo(json.dumps(found.to_json()) if as_json else found.to_text())
    if fail and found.verdict.kind == "REGRESSION":
        raise typer.Exit(1)


def is_model(operand: str) -> bool:
    """Whether an operand names a bundle or a model file and not a command.

    Example:
        >>> is_model("sleep 1"), is_model("no/such/file.onnx")
        (False, False)
    """
    before, _, after = operand.rpartition("@")
    folder = Path(before) if before and (Path(before) / MANIFEST_NAME).is_file() and after else Path(operand)
    return (folder / MANIFEST_NAME).is_file() or (folder.suffix in {".onnx", ".tflite"} and folder.is_file())


def _in_pairs(a: str, b: str, pairs: int, warmup: int, threads: int, *, as_json: bool) -> None:
    from benchmarks.interleave import interleave
    from benchmarks.operands import resolve

    words = ["strop", "bench", "compare", a, b, f"--pairs={pairs}", f"--warmup={warmup}", f"--threads={threads}"]
    sides = resolve(a, threads=threads), resolve(b, threads=threads)
    found = interleave(*sides, names=(a, b), pairs=pairs, warmup=warmup, command=shlex.join(words))
    typer.echo(json.dumps(found.to_json()) if as_json else found.to_text())


def _plans(a: str, b: str, chosen: dict[str, Any], *, same_artefact: bool) -> Any:
    from benchmarks.plan import plan_for
    from edge_contract.errors import MeasurementError

    plans = plan_for(a, **chosen), plan_for(b, **chosen)
    if same_artefact and plans[0].sha256 != plans[1].sha256:
        what = f"different artefacts: {plans[0].sha256[:12]} and {plans[1].sha256[:12]}"
        raise MeasurementError(what, where=f"{a} and {b}", fix="leave --same-artefact out to compare two models")
    return plans


def _launched(
    names: tuple[str, str], turns: "Turns", counts: tuple[int, int], stage: str, floors: Path, words: list[str]
) -> "Outcome":
    """Launch, judge, and while it is undecided and more are allowed, launch what it needs."""
    wanted, most = counts
    while True:
        turns.upto(wanted)
        found = _judged(names, turns.sides(), stage, floors, words)
        needs = found.verdict.needs
        if turns.is_interrupted or not needs or wanted >= most:
            return found
        wanted = min(most, wanted + needs)


def _judged(names: tuple[str, str], sides: Any, stage: str, floors: Path, words: list[str]) -> "Outcome":
    from benchmarks.comparison.outcome import outcome_of

    return outcome_of(names, sides, stage=stage, floors=floors, command=shlex.join(words))


def _said(chosen: dict[str, Any]) -> list[str]:
    """Return the options that were given, as words of the command."""
    return [f"--{name}={value}" for name, value in chosen.items() if value is not None and name != "input"]
