# SPDX-License-Identifier: Apache-2.0
"""What is in model files and bundles, and what differs between two of them, as tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.table import Table

from edge_contract.manifest import Manifest
from export.diff.comparison import BundleDiff, accuracy_of
from export.diff.files import FileDiff, Versions
from export.inspection.facts import ModelFacts, Scales

__all__ = ["accuracy_text", "bundle_diff_parts", "bundle_parts", "check_lines", "file_diff_parts", "model_parts"]

Part = Table | str
_SHOWN: Final = 12  # rows of a long table, without --all


def _table(title: str, left: Sequence[str], right: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right")
    return table


def _rows(table: Table, rows: Sequence[Sequence[str]], *, limit: int | None) -> Table:
    for row in rows[:limit]:
        table.add_row(*row)
    if limit is not None and len(rows) > limit:
        table.caption = f"{len(rows) - limit} more: --all"
        table.caption_justify = "left"
    return table


def model_parts(name: str, facts: ModelFacts, *, show_all: bool = False) -> list[Part]:
    """Return a model file's facts: lines, operators, scales, metadata."""
    limit = None if show_all else _SHOWN
    tensors = [*facts.inputs.items(), *facts.outputs.items()]
    parts: list[Part] = [
        f"{name}: {facts.format}, {facts.size} bytes, plan {facts.plan_digest[:12] or 'unknown'}",
        *(f"tensor {tensor}: {dtype} {list(shape)}" for tensor, (dtype, shape) in tensors),
        f"weights: {facts.weights_bytes} bytes in {len(facts.weights)} constants",
        _operator_table(facts),
    ]
    parts += [f"custom operators: {', '.join(facts.custom)}"] if facts.custom else []
    parts += [f"weights in other files: {', '.join(facts.outside)}"] if facts.outside else []
    parts += [_scale_summary(facts), _scale_table(facts, limit)] if facts.scales else ["no tensor is quantized"]
    return [*parts, *(f"metadata {key}: {text}" for key, text in facts.metadata)]


def _operator_table(facts: ModelFacts) -> Table:
    left, real = dict(facts.float_operators), "of them with real numbers"
    table, shown = _table("operators", ("operator",), ("version", "count", real)), set[str]()
    for name, version, count in facts.operators:
        table.add_row(name, str(version), str(count), "" if name in shown else str(left.get(name, "") or ""))
        shown.add(name)
    return table


def _scale_summary(facts: ModelFacts) -> str:
    def told(chosen: list[Scales], what: str) -> str:
        scales = [scale for found in chosen for scale in found.scales]
        return f"{len(chosen)} {what}, scales {min(scales):.3g} to {max(scales):.3g}" if scales else f"0 {what}"

    activations = [found for found in facts.scales if not found.is_constant]
    constants = [found for found in facts.scales if found.is_constant]
    per_channel = sum(found.axis is not None for found in constants)
    return f"quantized: {told(activations, 'activations')}; {told(constants, 'constants')} ({per_channel} per channel)"


def _scale_table(facts: ModelFacts, limit: int | None) -> Table:
    table = _table("scales", ("tensor", "type"), ("scales", "smallest", "largest", "zero point"))
    rows = []
    for found in facts.scales:
        zeros = sorted(set(found.zero_points))
        zero = str(zeros[0]) if len(zeros) == 1 else f"{zeros[0]} to {zeros[-1]}" if zeros else ""
        numbers = (str(len(found.scales)), f"{min(found.scales):.6g}", f"{max(found.scales):.6g}", zero)
        rows.append((found.name, f"{found.dtype}{', constant' if found.is_constant else ''}", *numbers))
    return _rows(table, rows, limit=limit)


def bundle_parts(manifest: Manifest, models: Mapping[str, ModelFacts], parity: Mapping[str, Any]) -> list[Part]:
    """Return a verified bundle: artefacts, accuracy, parity, files."""
    table = _table("artefacts", ("file", "target", "runs in"), ("bytes", "operators"))
    for artefact in manifest.artefacts:
        facts = models[artefact.path]
        total, left = sum(n for _, _, n in facts.operators), sum(n for _, n in facts.float_operators)
        runtimes = ", ".join(artefact.runtimes)
        table.add_row(artefact.path, artefact.target, runtimes, str(facts.size), f"{total}, {left} real")
    listed = _table("files", ("file", "SHA-256"), ("bytes",))
    for entry in manifest.files:
        listed.add_row(entry.path, entry.sha256[:12], str(entry.size))
    return [
        f"{manifest.model} {manifest.version}, {manifest.task}, bundle {manifest.bundle_id}",
        table,
        *(f"accuracy of {row}: {accuracy_text(score)}" for row, score in accuracy_of(manifest).items()),
        *check_lines(manifest.lineage),
        *parity_tables(parity),
        listed,
        "every file is as the manifest says",
    ]


def check_lines(lineage: Mapping[str, Any]) -> list[str]:
    """Return what a lineage says of the recipe's checks: those that passed, and each waiver with its reason."""
    found = lineage.get("checks")
    if not isinstance(found, Mapping):
        return []
    passed = ", ".join(str(name) for name in found.get("passed", ()))
    waived = [one for one in found.get("waived", ()) if isinstance(one, Mapping)]
    lines = [f"checks passed: {passed}"] if passed else []
    return [*lines, *(f"check waived: {_waiver(one)}" for one in waived)]


def _waiver(one: Mapping[str, Any]) -> str:
    keys = ("name", "kind", "figure", "limit", "reason")
    name, kind, figure, limit, reason = (str(one.get(key, "?")) for key in keys)
    return f"{name} ({kind}), {figure}, asked {limit}: {reason}"


def parity_tables(parity: Mapping[str, Any]) -> list[Table]:
    """Return a bundle's parity, from ``diff.parity_of``: pairs in integers, pairs in real numbers."""
    tables = []
    for title, is_wanted in (("integers", True), ("real numbers", False)):
        chosen = {pair: found for pair, found in parity.items() if ("differing" in found) == is_wanted}
        names = list(dict.fromkeys(key for found in chosen.values() for key in found))
        table = _table(f"parity, {title}", ("who / with whom",), tuple(name.replace("_", " ") for name in names))
        for pair, found in chosen.items():
            table.add_row(pair, *(_number(found.get(name)) for name in names))
        tables += [table] if chosen else []
    return tables


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def file_diff_parts(diff: FileDiff, *, show_all: bool = False) -> list[Part]:
    """Return what differs between two model files."""
    limit = None if show_all else _SHOWN
    parts: list[Part] = [
        f"{diff.first} → {diff.second}",
        f"file: {_sizes(diff.sizes)}; weights: {_sizes(diff.weights)}",
        *(f"{name}: {before or 'none'} → {after or 'none'}" for name, (before, after) in diff.tensors.items()),
    ]
    if diff.operators:
        table = _table("operators", ("operator", "change", "before", "after"))
        parts.append(
            _rows(
                table, [(o.name, o.kind, _versions(o.first), _versions(o.second)) for o in diff.operators], limit=None
            )
        )
    parts.append(f"constants: {diff.constants} equal, {len(diff.changed)} changed")
    if diff.changed:
        head = ("numbers", "differing", "share", "bytes")
        weights = [(_named(w), w.kind, str(w.values), *_shares(w)) for w in diff.changed]
        parts.append(_rows(_table("weights", ("constant", "change"), head), weights, limit=limit))
    if diff.scales:
        scales = [(_named(s), f"{100 * s.relative:.3g} %", str(s.zero_point)) for s in diff.scales]
        table = _table("scales", ("tensor",), ("largest change", "zero point, steps"))
        parts.append(_rows(table, scales, limit=limit))
    told = [f"metadata {key}: {before or 'none'} → {after or 'none'}" for key, (before, after) in diff.metadata.items()]
    return [*parts, *told, *(["the same operators, tensors, numbers and scales"] if diff.is_same else [])]


def _named(change: Any) -> str:
    return f"{change.name} ({change.at})" if change.at else str(change.name)


def _shares(change: Any) -> tuple[str, str, str]:
    if change.kind != "values":
        return "", "", ""
    share = 100 * change.differing / change.values
    return str(change.differing), f"{share:.1f} %", f"{100 * change.differing_bytes:.1f} %"


def _sizes(sizes: tuple[int, int]) -> str:
    before, after = sizes
    change = f" ({100 * (after - before) / before:+.1f} %)" if before and before != after else ""
    return f"{before} → {after} bytes{change}" if change or before != after else f"{before} bytes, as before"


def _versions(versions: Versions) -> str:
    return ", ".join(f"{count} of version {version}" for version, count in versions) or "none"


def bundle_diff_parts(diff: BundleDiff, *, show_all: bool = False) -> list[Part]:
    """Return what differs between two bundles."""
    parts: list[Part] = [f"{diff.first} →", diff.second]
    parts += [f"{key}: {_word(before)} → {_word(after)}" for key, (before, after) in diff.facts.items()]
    if diff.accuracy:
        table = _table("accuracy", ("of", "before [95 %]", "after [95 %]", ""))
        for row, (before, after) in diff.accuracy.items():
            table.add_row(row, accuracy_text(before), accuracy_text(after), _judged(before, after))
        parts.append(table)
    moved = {pair: (_parity(before), _parity(after)) for pair, (before, after) in diff.parity.items()}
    if any(before != after for before, after in moved.values()):
        table = _table("parity: differing integers, or relative error", ("who / with whom",), ("before", "after"))
        for pair, (before, after) in moved.items():
            if before != after:
                table.add_row(pair, before, after)
        parts.append(table)
    for key, (before, after) in diff.missing.items():
        parts.append(f"artefact for {key}: {before or 'none'} → {after or 'none'}")
    for key, files in diff.artefacts.items():
        parts += ["", f"artefact for {key}", *file_diff_parts(files, show_all=show_all)]
    table = _table("files", ("file",), ("bytes before", "after"))
    for path, (before, after) in diff.files.items():
        table.add_row(path, str(before or ""), str(after or ""))
    kept = f"{diff.kept_bytes} bytes are in the first bundle already and are not sent again"
    return [*parts, *([table] if diff.files else ["all files are equal"]), kept]


def _word(value: Any) -> str:
    return "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def accuracy_text(row: Mapping[str, Any] | None) -> str:
    """Return a score with its interval.

    Example:
        >>> accuracy_text({"accuracy": 0.5, "low": 0.4, "high": 0.6, "samples": 90})
        '50.0 % [40.0, 60.0] of 90'
    """
    if row is None:
        return "none"
    return f"{100 * row['accuracy']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}] of {row['samples']}"


def _judged(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """Say whether the intervals are apart; where they are not, the samples are too few to tell."""
    if before is None or after is None or before == after:
        return ""
    if before["high"] < after["low"] or after["high"] < before["low"]:
        return "better" if after["accuracy"] > before["accuracy"] else "worse"
    return "within the intervals"


def _parity(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "none"
    if "differing" in found:
        return f"{found['differing']} of {found['values']}"
    return _number(found.get("relative_error"))
