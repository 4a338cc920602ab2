# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.peers``: every side by side with other tools, in one page, from what was measured last.

It measures nothing: each table names the command that makes its figures, and ``make peers`` runs them all.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.delta import RESULTS as DELTAS
from benchmarks.drift.results import RESULTS as DRIFTS
from benchmarks.machine import Machine
from benchmarks.peers import agents, store
from benchmarks.peers.rows import ROWS
from benchmarks.peers.run import RESULTS
from benchmarks.peers.show import newest
from benchmarks.peers.tables import Table, pairs_table
from edge_contract.errors import UsageError

__all__ = ["SECTIONS", "delta_section", "drift_section", "files_section", "quantizers", "sections"]

_SIZES: Final = ("200", "1000", "10000")
_DETECTORS: Final = {"LEAN": "Strop's counters", "BBSDs": "BBSDs, all softmax outputs kept", "KLL": "KLL sketches"}

Entry = Mapping[str, Any]


def quantizers(document: Entry) -> Table:
    """Return, for each network and kind of file, ours by default beside the best row of each other tool by KL."""
    columns = ("network, file", "tool", "drop [95 %]", "agree %", "KL", "KiB", "speed")
    rows: list[tuple[str, ...]] = []
    for net, entry in document["nets"].items():
        for kind in ("onnx", "tflite"):
            files = _by_tool(entry["rows"], kind)
            rows += [(f"{net}, {kind}", *_quantized(name, kind, entry)) for name in _best(files)]
    note = "of each tool its row of the smallest KL, picked with the result in view; ours is the default"
    return Table("int8 quantizers", columns, tuple(rows), (note, _origin(document, "make peers")))


def _by_tool(rows: Entry, kind: str) -> dict[str, list[tuple[float, str]]]:
    """Return tool → (KL, row) of its files of one kind."""
    found: dict[str, list[tuple[float, str]]] = {}
    for name, row in rows.items():
        if kind in row.get("files", {}) and name in ROWS:
            found.setdefault(name.split("-")[0], []).append((row["files"][kind]["kl"], name))
    return found


def _best(files: Mapping[str, list[tuple[float, str]]]) -> Iterable[str]:
    return ("ours" if tool == "ours" else min(rows)[1] for tool, rows in files.items())


def _quantized(name: str, kind: str, entry: Entry) -> tuple[str, ...]:
    file = entry["rows"][name]["files"][kind]
    drop, speed = file["drop"], entry.get("speed", {}).get(f"{name} {kind}")
    lost = "–" if file["labelled"] < 100 else f"{drop['value']:.2f} [{drop['low']:.2f}, {drop['high']:.2f}]"
    return (
        ROWS[name].title,
        lost,
        f"{file['agreement']['value']:.2f}",
        f"{file['kl']:.5f}",
        f"{file['bytes'] / 1024:.0f}",
        f"{speed['ratio']:.2f}×" if speed else "–",
    )


def files_section(document: Entry) -> Table:
    """Return whether a tool's two files compute the same integers: ours, and the closest pair of the others."""
    rows: list[tuple[str, ...]] = []
    for net, entry in document["nets"].items():
        ours = {key: pair for key, pair in entry["pairs"].items() if pair["a"] == "ours onnx"}
        others = [(pair["exact_percent"], key) for key, pair in entry["pairs"].items() if key not in ours]
        chosen = {**ours, **({max(others)[1]: entry["pairs"][max(others)[1]]} if others else {})}
        rows += [(net, *row) for row in pairs_table(net, {"pairs": chosen}).rows]
    columns = ("network", "pair", "output codes", "differing", "exact %", "largest difference, steps", "same class %")
    return Table("ONNX and TFLite file of one model", columns, tuple(rows), (_origin(document, "make peers"),))


def delta_section(document: Entry) -> Table:
    """Return the bytes of each patch beside bsdiff4's and zstd's."""
    columns = ("network, file", "change", "file", "Strop", "zstd patch-from", "zstd", "bsdiff4", "Strop / bsdiff4")
    rows = []
    for row in document["rows"]:
        ours, sizes = row["bytes"][row["codec"]], row["bytes"]
        peer = row["bsdiff4"]
        cells = (f"{row['file_bytes']:,}", f"{ours:,}", f"{sizes['zstd-prefix']:,}", f"{sizes['zstd']:,}")
        ratio = (f"{peer:,}", f"{ours / peer:.2f}") if peer else ("–", "–")
        rows.append((f"{row['net']}, {row['format']}", row["change"], *cells, *ratio))
    return Table("delta updates, bytes", columns, tuple(rows), (_origin(document, "make delta"),))


def drift_section(document: Entry) -> Table:
    """Return power and bytes of drift detectors, calibrated to the same false alarms, by size of the window."""
    found = document["found"]["sizes"]
    columns = ("detector", *(f"power, n = {size}" for size in _SIZES), *(f"bytes, n = {size}" for size in _SIZES))
    rows = []
    for name, title in (*_DETECTORS.items(), ("MMD", "MMD, all outputs kept")):
        power = (f"{found[size]['power'][name]:.3f}" if found[size]["power"][name] else "–" for size in _SIZES)
        rows.append((title, *power, *(f"{found[size]['bytes'][name]:,}" for size in _SIZES)))
    note = "shifts of Failing Loudly on Fashion-MNIST, quantized CNN; –: it was not run at that size"
    return Table("drift detectors", columns, tuple(rows), (note, _origin(document, document["command"])))


def _origin(document: Entry, command: str) -> str:
    return f"{command}, on {Machine(**document['machine'])}"


def _last(folder: Path) -> Entry:
    return store.read_json(newest(folder))


SECTIONS: Final[Mapping[str, Callable[[], Table]]] = {
    "quantizers": lambda: quantizers(_last(RESULTS)),
    "files": lambda: files_section(_last(RESULTS)),
    "deltas": lambda: delta_section(_last(DELTAS)),
    "drift": lambda: drift_section(json.loads((DRIFTS / "failing_loudly.json").read_text(encoding="utf-8"))),
    "agents": lambda: agents.table(_last(agents.FOLDER)),
}


def sections(names: Iterable[str] = ()) -> list[Table]:
    """Return the tables by name, or all.

    Raises:
        UsageError: There is no such table, or nothing was measured for it.
    """
    wanted = list(names) or list(SECTIONS)
    if strangers := [name for name in wanted if name not in SECTIONS]:
        raise UsageError(f"unknown table '{strangers[0]}'", fix=f"use one of {', '.join(SECTIONS)}")
    return [SECTIONS[name]() for name in wanted]
