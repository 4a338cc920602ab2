# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.training.show``: write the measured tables into README.md and docs/compression.md.

Nothing is typed by hand: what stands between the marks is read off the results files, and a test compares the two.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.peers import store
from benchmarks.peers.rows import ROWS
from benchmarks.peers.show import newest
from benchmarks.training.common import RESULTS, Interval, mean_interval, paired_interval

__all__ = ["PAGES", "between", "main", "table"]

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = (ROOT / "README.md", ROOT / "docs" / "compression.md")
FIRST, LAST = "<!-- trainings: python -m benchmarks.training.show -->", "<!-- /trainings -->"
COMMAND: Final = "make trainings"
PARAMETERS: Final = 70_666
"""Of the teacher, the MobileNetV2-like checkpoint."""


def _load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _values(document: Mapping[str, Any], row: str, field: str) -> dict[int, float]:
    entries = (entry for entry in document["entries"] if entry["row"] == row)
    return {entry["seed"]: float(entry["values"][field]) for entry in entries}


def _mean(values: Mapping[int, float]) -> Interval:
    return mean_interval(list(values.values()))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _distillation(document: Mapping[str, Any]) -> list[str]:
    plain, student = _values(document, "plain", "accuracy"), document["summary"]["student"]
    lines = []
    for row, settings in document["settings"].items():
        found = _values(document, row, "accuracy")
        if not found:
            continue
        gain = "–" if row == "plain" else paired_interval(plain, found).text("+.2f")
        what = f"student of {student['parameters']} parameters: {row}, {settings['epochs']} epochs"
        lines.append(_row(what, _mean(found).text(), f"gain {gain}" if row != "plain" else "–", str(len(found))))
    return lines


def _pruning(document: Mapping[str, Any]) -> list[str]:
    lines = []
    for row in document["settings"]:
        found = _values(document, row, "accuracy")
        if not found:
            continue
        macs, speed, raw = (_mean(_values(document, row, key)).mean for key in ("macs", "speedup", "raw"))
        what = f"{100 * macs:.0f} % of the MACs: {row}"
        cost = f"{speed:.2f} × as fast in ONNX Runtime, float; {raw:.1f} % before any tuning"
        lines.append(_row(what, _mean(found).text(), cost, str(len(found))))
    return lines


def _qat(document: Mapping[str, Any]) -> list[str]:
    lines = []
    for row in document["settings"]:
        entry = next((one["values"] for one in document["entries"] if one["row"] == row), None)
        if entry is None:
            continue
        for key, name in (("ptq", "before"), ("qat", "trained one epoch")):
            drop = entry[f"{key}_drop"]
            interval = f"{drop['points']:.2f} [{drop['low']:.2f}, {drop['high']:.2f}]"
            cost = f"drop {interval}, KL to float {entry[f'{key}_kl']:.5f}"
            lines.append(_row(f"{row}, trained integers: {name}", f"{entry[key]:.2f}", cost, "1"))
    return lines


def _combined(document: Mapping[str, Any]) -> list[str]:
    lines = []
    for entry in document["entries"]:
        found = entry["values"]
        after, change, size, best = (found[key] for key in ("after", "change", "bytes", "times"))
        score = f"{100 * after['accuracy']:.2f} [{100 * after['low']:.2f}, {100 * after['high']:.2f}]"
        shares = " and ".join(
            f"1/{size[f'float {kind}'] / size[f'int8 {kind}']:.1f} of the {name} file"
            for kind, name in (("onnx", "ONNX"), ("tflite", "TFLite"))
        )
        drop = f"{change['points']:+.2f} [{change['low']:+.2f}, {change['high']:+.2f}] points"
        what = f"prune + distil + int8, {found['macs']:.0%} of the MACs, on {after['samples']} unseen images"
        time = f"{1 / best['best']['ratio']:.2f} of the time of the fastest float file"
        lines.append(_row(what, score, f"{drop}; {shares}; {time}", "1"))
    return lines


def _calibrated(nets: Mapping[str, Any]) -> list[str]:
    """Ours beside the tool that comes nearest to the float network, on the same checkpoint and calibration samples."""
    lines = []
    for net, found in nets.items():
        rows = {name: next(iter(row["files"].values())) for name, row in found["rows"].items() if row.get("files")}
        peer = min((name for name in rows if not name.startswith("ours")), key=lambda name: float(rows[name]["kl"]))
        for name, title in (("ours", "calibrated"), (peer, f"best peer, {ROWS[peer].title}")):
            file = rows[name]
            drop, score = file["drop"], f"{100 * file['right'] / file['labelled']:.2f}"
            points = f"drop {drop['value']:.2f} [{drop['low']:.2f}, {drop['high']:.2f}], "
            is_whole = file["labelled"] == file["judged"]  # the photographs of Lite0 have labels for twenty only
            about = f"{points if is_whole else ''}KL to float {file['kl']:.5f}"
            lines.append(_row(f"{net}, int8: {title}", score if is_whole else "–", about, "1"))
    return lines


def table() -> str:
    """Return the tables of all results as Markdown, with the machine, the day and the versions."""
    documents = {name: _load(name) for name in ("distillation", "pruning", "combined", "qat")}
    latest = max(documents.values(), key=lambda one: str(one["date"]))
    machine, versions = latest["machine"], latest["versions"]
    words = ", ".join(f"{name} {version}" for name, version in versions.items())
    place = f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, {words}"
    head = [
        f"Fashion-MNIST, 10 000 test images, teacher of {PARAMETERS} parameters at 92.90 %; `{COMMAND}`, `make peers`,",
        f"{str(latest['date'])[:10]}, {place}.",
        "",
        _row("what", "top-1, % [95 % over seeds]", "beside it", "seeds"),
        "|---|---|---|---|",
    ]
    parts = (_distillation, _pruning, _combined, _qat)
    rows = [line for part, document in zip(parts, documents.values(), strict=True) for line in part(document)]
    rows += _calibrated(store.read_json(newest())["nets"])
    return "\n".join([*head, *rows])


def between(text: str, new: str) -> str:
    """Return a page with what stands between the marks replaced.

    Example:
        >>> between(f"a {FIRST} old {LAST} b", "new").split() == f"a {FIRST} new {LAST} b".split()
        True
    """
    before, _, rest = text.partition(FIRST)
    _, _, after = rest.partition(LAST)
    return f"{before}{FIRST}\n{new}\n{LAST}{after}"


def main(pages: Sequence[Path] = PAGES) -> None:
    """Write the pages."""
    new = table()
    for page in pages:
        page.write_text(between(page.read_text(encoding="utf-8"), new), encoding="utf-8")
    print(new)


if __name__ == "__main__":
    main()
