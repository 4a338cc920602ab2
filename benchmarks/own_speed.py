# SPDX-License-Identifier: Apache-2.0
"""The project's own speed against what is kept of this machine: ``python -m benchmarks.own_speed``.

Agent overhead, drift counting, delta, ingest and footprint, a process for each launch, all subjects in turns. The
verdict of each figure is REGRESSION, IMPROVED or INCONCLUSIVE, by the same rule as ``strop bench compare``; since the
kept figures are of another hour, their threshold knows how far two measurements of the same source came apart (--aa).
A machine of which nothing is kept is told so, and nothing is compared.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.own.keeping import FOLDER, Own, load, now, others, save
from benchmarks.own.subjects import SUBJECTS, UNITS
from edge_contract.errors import MeasurementError, StropError

__all__ = ["compare", "main", "measure", "to_text"]

_ROOT: Final = Path(__file__).resolve().parents[1]
_TIMEOUT_S: Final = 300
Launches = dict[str, list[list[float]]]
Runner = Callable[[str, Path], Mapping[str, list[float]]]


def measure(
    subjects: Iterable[str], launches: int, say: Callable[[str], None], run: Runner | None = None
) -> tuple[Launches, dict[str, str]]:
    """Return figure → launches, and subject → why it could not be measured.

    Args:
        subjects: Names.
        launches: Of each.
        say: Progress for people.
        run: Runs one subject once; default: in a process of its own.
    """
    once, found, missing = run or _child, dict[str, list[list[float]]](), dict[str, str]()
    with tempfile.TemporaryDirectory(prefix="strop-own-", dir="/var/tmp") as name:
        for number in range(launches):
            for subject in subjects:
                if subject in missing:
                    continue
                say(f"launch {number + 1} of {launches}: {subject}")
                try:
                    values = once(subject, Path(name))
                except MeasurementError as error:
                    missing[subject] = str(error)
                    continue
                for figure, one in values.items():
                    found.setdefault(figure, []).append(list(one))
    return {figure: found[figure] for figure in UNITS if figure in found}, missing


def _child(subject: str, folder: Path) -> Mapping[str, list[float]]:
    words = [sys.executable, "-m", "benchmarks.own.subjects", subject, str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=_ROOT, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"did not end within {_TIMEOUT_S} s", where=subject) from error
    if done.returncode:
        last = (done.stderr.strip() or "without a word").splitlines()[-1]
        raise MeasurementError(last.removeprefix("error: ")[:300], where=subject)
    found: Mapping[str, list[float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def compare(kept: Own, fresh: Own) -> dict[str, dict[str, Any]]:
    """Return figure → verdict, for the figures that both have.

    Raises:
        MeasurementError: They are of two machines.
    """
    from benchmarks.stats import judge

    if kept.key != fresh.key:
        what = f"kept on {kept.key}, measured on {fresh.key}"
        raise MeasurementError(what, where="own speed", fix="figures of two machines are not compared")
    rows = {}
    for figure, after in fresh.launches.items():
        before = kept.launches.get(figure)
        if before is not None:
            rows[figure] = _row(judge, before, after, kept.noise.get(figure))
    return rows


def _row(
    judge: Callable[..., Any], before: list[list[float]], after: list[list[float]], noise: float | None
) -> dict[str, Any]:
    found = judge(before, after, noise=noise)
    ratio = found.ratio
    return {
        "kind": found.kind, "ratio": ratio.point, "low": ratio.low, "high": ratio.high, "needs": found.needs,
        "threshold": found.threshold,
    }  # fmt: skip


def to_text(fresh: Own, kept: Own | None, rows: Mapping[str, Mapping[str, Any]], strangers: list[str]) -> str:
    """Return the table for people."""
    from benchmarks.stats import launch_medians, median

    width = max(map(len, fresh.launches), default=10)
    lines = [f"{fresh.machine}, commit {fresh.commit or 'unknown'}"]
    for figure, launches in fresh.launches.items():
        value = f"{median(launch_medians(launches)):10.4g} {UNITS[figure]:<5}"
        lines.append(f"{figure:<{width}}  {value}  {_words(rows.get(figure))}".rstrip())
    lines += [f"not measured: {words}" for words in fresh.missing.values()]
    if kept is not None:
        lines.append(f"compared with {kept.date[:10]}, commit {kept.commit or 'unknown'}; ratio: now over then")
    elif strangers:
        lines.append(f"kept are other machines ({', '.join(strangers)}): nothing is compared; --keep keeps this one")
    else:
        lines.append("nothing is kept yet: nothing is compared; --keep keeps this one")
    return "\n".join(lines)


def _words(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    more = f", needs {row['needs']} more launches" if row["needs"] else ""
    return f"{row['kind']:<12} {row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}]{more}"


def _noise(first: Launches, second: Launches) -> dict[str, float]:
    from benchmarks.stats import noise_of

    return {figure: round(noise_of(first[figure], second[figure]), 5) for figure in first if figure in second}


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.own_speed", description="The project's own speed.")
    parser.add_argument("--only", action="append", choices=list(SUBJECTS), help="one subject; may be repeated")
    parser.add_argument("--launches", type=int, default=6, help="of each subject; verdicts need five")
    parser.add_argument("--keep", action="store_true", help="keep it as this machine's figures")
    parser.add_argument("--aa", action="store_true", help="measure twice, and keep how far the two came apart")
    parser.add_argument("--results", type=Path, default=FOLDER, help="where figures are kept")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure, compare, print; 1 when a figure is a REGRESSION, nothing could be measured, or a file is wrong."""
    options = _parsed(arguments)
    chosen, say = options.only or list(SUBJECTS), lambda words: print(words, file=sys.stderr)
    try:
        first, missing = measure(chosen, options.launches, say)
        if not first:
            raise MeasurementError("nothing could be measured", where="; ".join(missing.values()))
        second = measure(chosen, options.launches, say)[0] if options.aa else {}
        fresh = now(first, noise=_noise(first, second), missing=missing)
        kept = load(fresh.key, options.results)
        rows = compare(kept, fresh) if kept else {}
        if options.keep or options.aa:
            save(_over(kept, fresh), options.results)
    except StropError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    text = json.dumps({**fresh.to_json(), "verdicts": rows})
    print(text if options.json else to_text(fresh, kept, rows, others(fresh.key, options.results)))
    return 1 if any(row["kind"] == "REGRESSION" for row in rows.values()) else 0


def _over(kept: Own | None, fresh: Own) -> Own:
    """Return what to keep: subjects that were not measured now stay as they were, and so does noise."""
    if kept is None:
        return fresh
    launches, noise = {**kept.launches, **fresh.launches}, {**kept.noise, **fresh.noise}
    return Own(fresh.key, fresh.machine, fresh.date, fresh.commit, launches, noise, fresh.missing)


if __name__ == "__main__":
    sys.exit(main())
