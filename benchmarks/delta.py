# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.delta``: what an update costs on the air, on real model files, and the table of docs/delta.md.

``strop bench delta`` is the same. The files are made once, by training and quantizing (about five minutes on one
core), below ``build/delta``. Nothing is typed by hand: what stands between the page's marks is read off the results,
and a test compares the two.
"""

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks.machine import describe

__all__ = ["PAGE", "RESULTS", "between", "main", "newest", "promises", "show", "table"]

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = Path(__file__).with_name("delta_results")
PAGE: Final = ROOT / "docs" / "delta.md"
FIRST, LAST = "<!-- patches: python -m benchmarks.delta -->", "<!-- /patches -->"
PACKAGES: Final = ("zstandard", "numpy", "torch")
MEMORY_LIMIT: Final = 64_000_000
HEAD_LIMIT: Final = 0.05


def newest() -> Path:
    """Return the newest results file."""
    return max(RESULTS.glob("*.json"), key=lambda path: path.name[-15:])


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _line(row: Mapping[str, Any]) -> str:
    size, ours = row["file_bytes"], row["bytes"][row["codec"]]
    peer = row["bsdiff4"]
    theirs = f"{peer:,} ({ours / peer:.2f})" if peer else "–"
    sizes = [f"{row['bytes'][codec]:,}" for codec in ("tensors", "zstd-prefix", "zstd")]
    share = f"**{100 * ours / size:.1f} %** {row['codec']}" if row["worth_it"] else f"{100 * ours / size:.1f} %, full"
    return _row(f"{row['net']}, {row['format']}", row["change"], f"{size:,}", *sizes, theirs, share)


def table(document: Mapping[str, Any]) -> str:
    """Return the results as Markdown, with machine, day, versions and whether each promise is kept."""
    machine, large, times = document["machine"], document["large"], document["times"]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items() if version)
    place = f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, {versions}"
    head = [
        f"`python -m benchmarks.delta`, {document['date']}, {place}.",
        "Bytes; in brackets our bytes over bsdiff4's.",
        "",
        _row("file", "change", "full", "tensors", "zstd-prefix", "zstd", "bsdiff4", "sent"),
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    lines = [_line(row) for row in document["rows"]]
    return "\n".join([*head, *lines, "", *promises(document), *_more(large, times)])


def promises(document: Mapping[str, Any]) -> list[str]:
    """Return a line for each promise of the issue: the figure, and whether it is kept."""
    rows = document["rows"]
    head = max(row["bytes"][row["codec"]] / row["file_bytes"] for row in rows if row["change"] == "head")
    scattered = [row for row in rows if row["change"].startswith("±1") and row["bsdiff4"]]
    ratios = [row["bytes"][row["codec"]] / row["bsdiff4"] for row in scattered]
    every = [row["bytes"][row["codec"]] / row["bsdiff4"] for row in rows if row["bsdiff4"]]
    peaks = [row["peak_bytes"] for row in rows]
    peaks += [document["large"][codec]["peak_bytes"] for codec in ("tensors", "zstd-prefix")]
    lines = [f"- Head-only retrain: at most {100 * head:.1f} % of the file (limit 5 %): {_kept(head <= HEAD_LIMIT)}."]
    if ratios:
        lines.append(
            f"- Scattered ±1: at most {max(ratios):.2f} × bsdiff4's bytes (limit 1): {_kept(max(ratios) <= 1)}."
        )
        lines.append(f"- All rows: at most {max(every):.2f} × bsdiff4's bytes.")
    most = max(peaks)
    kept = _kept(most <= MEMORY_LIMIT)
    lines.append(f"- Memory of applying: at most {most / 1e6:.1f} MB, the whole process (limit 64 MB): {kept}.")
    return lines


def _kept(claim: bool) -> str:  # noqa: FBT001 - reads as a claim
    return "kept" if claim else "**missed**"


def _more(large: Mapping[str, Any], times: Mapping[str, Any] | None) -> list[str]:
    both = (
        f"{large[codec]['peak_bytes'] / 1e6:.1f} MB by {codec} ({large[codec]['bytes']:,} bytes)"
        for codec in ("tensors", "zstd-prefix")
    )
    lines = [f"- A file of {large['file_bytes'] / 1e6:.0f} MB, half of it nudged: {', '.join(both)}."]
    if times:
        a, b, ratio = times["a"]["median_ns"] / 1e9, times["b"]["median_ns"] / 1e9, times["ratio"]
        lines.append(
            f"- Applying EfficientNet-Lite0's tuned, frozen file: {b:.2f} s, bsdiff4 {a:.2f} s (whole processes; ours "
            f"hashes both files and syncs); ratio {ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}] of "
            f"{ratio['n']} turns, on a machine with a load of {times['machine']['load_1min']:.0f}."
        )
    return lines


def between(text: str, new: str) -> str:
    """Return a page with what stands between the marks replaced."""
    before, _, rest = text.partition(FIRST)
    _, _, after = rest.partition(LAST)
    return f"{before}{FIRST}\n{new}\n{LAST}{after}"


def show() -> str:
    """Write the page's table from the newest results, and return it."""
    new = table(json.loads(newest().read_text(encoding="utf-8")))
    PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), new), encoding="utf-8")
    return new


def main(
    files: Annotated[Path, typer.Option(help="Where the model files are, or are made.")] = ROOT / "build" / "delta",
    bsdiff_python: Annotated[str, typer.Option(help="A Python that has bsdiff4; default: this one.")] = "",
    pairs: Annotated[int, typer.Option(min=3, help="Turns of the timed applications.")] = 12,
    *,
    only_show: Annotated[bool, typer.Option("--show", help="Measure nothing: write the page from what was.")] = False,
) -> None:
    """Measure patches on real model files: bytes beside bsdiff4's, memory and time of applying them."""
    if not only_show:
        _measure(files, bsdiff_python, pairs)
    typer.echo(show())


def _measure(files: Path, bsdiff_python: str, pairs: int) -> None:
    from benchmarks.peers.delta_measure import Bsdiff, measure
    from edge_contract.errors import MissingDependencyError

    def say(words: str) -> None:
        typer.echo(words, err=True)

    try:
        peer: Bsdiff | None = Bsdiff(bsdiff_python)
    except MissingDependencyError as error:
        say(f"without the peer: {error}")
        peer = None
    machine = describe()
    found = measure(files, peer, say, pairs=pairs)
    day = dt.datetime.now(dt.UTC).date().isoformat()
    versions = {name: metadata.version(name) for name in PACKAGES} | {"bsdiff4": found.pop("bsdiff4")}
    document = {"schema": "strop.delta-bench/1", "date": day, "machine": asdict(machine), "versions": versions, **found}
    slug = "-".join(machine.processor.lower().replace("(r)", "").split())
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{slug}-{day}.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    say(f"written to {path}")


if __name__ == "__main__":
    typer.run(main)
