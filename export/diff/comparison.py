# SPDX-License-Identifier: Apache-2.0
"""What differs between two bundles, or between two model files: ``strop export diff``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_agent.runner.contents import Contents
from edge_contract import canonical
from edge_contract.errors import BundleError, ContractError, UsageError
from edge_contract.manifest import Artefact, Manifest
from export.diff.files import FileDiff
from export.diff.files import compare as compare_files

__all__ = ["BundleDiff", "accuracy_of", "compare", "compare_bundles", "parity_of"]

_INTEGERS: Final = ("values", "differing", "max_steps", "same_class")
_REALS: Final = ("values", "relative_error", "sqnr_db", "max_abs", "kl")

Pair = tuple[Any, Any]


@dataclass(frozen=True)
class BundleDiff:
    """All differences of two bundles; empty parts are equal.

    Attributes:
        first, second: "model version, bundle id" of each.
        facts: Name, task, preprocessing, post-processing and labels that differ: key → (before, after).
        files: Path → (bytes before, after); 0 where there is none; equal files are left out.
        kept_bytes: Bytes of the second bundle that a device with the first one has already.
        accuracy: Row → (before, after), each {accuracy, low, high, samples} or None.
        parity: Pair → (before, after) as ``parity_of`` tells them, or None.
        artefacts: "target format" → differences of the two files.
        missing: "target format" → path, of artefacts that only one of them has: (before, after).
    """

    first: str
    second: str
    facts: Mapping[str, Pair]
    files: Mapping[str, tuple[int, int]]
    kept_bytes: int
    accuracy: Mapping[str, Pair]
    parity: Mapping[str, Pair]
    artefacts: Mapping[str, FileDiff]
    missing: Mapping[str, tuple[str, str]]

    def to_json(self) -> dict[str, Any]:
        return {
            "first": self.first,
            "second": self.second,
            "facts": {key: list(pair) for key, pair in self.facts.items()},
            "files": {path: list(sizes) for path, sizes in self.files.items()},
            "kept_bytes": self.kept_bytes,
            "accuracy": {row: list(pair) for row, pair in self.accuracy.items()},
            "parity": {pair: list(found) for pair, found in self.parity.items()},
            "artefacts": {key: found.to_json() for key, found in self.artefacts.items()},
            "missing": {key: list(pair) for key, pair in self.missing.items()},
        }


def compare(first: Path, second: Path) -> FileDiff | BundleDiff:
    """Return what differs between two bundle folders, or two model files.

    Raises:
        UsageError: A folder and a file.
        ModelError, BundleError, ManifestError: One of them cannot be read, or a bundle's file was changed.
    """
    kinds = {first.is_dir(), second.is_dir()}
    if len(kinds) > 1:
        raise UsageError("a folder and a file", where=f"{first} {second}", fix="give two bundles or two model files")
    return compare_bundles(first, second) if first.is_dir() else compare_files(first, second)


def compare_bundles(first: Path, second: Path) -> BundleDiff:
    """Return what differs between two bundle folders; raises as ``compare`` does."""
    one, two = Contents.open(first), Contents.open(second)
    a, b = one.manifest, two.manifest
    old, new = _by_target(a), _by_target(b)
    sizes = {entry.sha256: entry.size for entry in b.files}
    kept = {entry.sha256 for entry in a.files} & sizes.keys()
    return BundleDiff(
        f"{a.model} {a.version}, bundle {one.bundle}",
        f"{b.model} {b.version}, bundle {two.bundle}",
        _changed(_facts(a), _facts(b)),
        _files(a, b),
        sum(sizes[sha256] for sha256 in kept),
        _both(accuracy_of(a), accuracy_of(b)),
        _both(parity_of(one), parity_of(two)),
        {key: _compared(one, old[key], two, new[key]) for key in old if key in new},
        {key: (old.get(key, ""), new.get(key, "")) for key in sorted(old.keys() ^ new.keys())},
    )


def _compared(one: Contents, first: str, two: Contents, second: str) -> FileDiff:
    return compare_files(one.path(first), two.path(second))


def _by_target(manifest: Manifest) -> dict[str, str]:
    def key(artefact: Artefact) -> str:
        return f"{artefact.target} {artefact.format}"

    return {key(artefact): artefact.path for artefact in reversed(manifest.artefacts)}


def _facts(manifest: Manifest) -> dict[str, Any]:
    document = manifest.to_json()
    facts = {key: document[key] for key in ("model", "task", "postprocess", "labels")}
    return facts | {f"preprocess.{key}": value for key, value in document["preprocess"].items()}


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Pair]:
    return {key: pair for key, pair in _both(a, b).items() if pair[0] != pair[1]}


def _both(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Pair]:
    return {key: (a.get(key), b.get(key)) for key in dict.fromkeys((*a, *b))}


def _files(a: Manifest, b: Manifest) -> dict[str, tuple[int, int]]:
    old, new = ({entry.path: entry for entry in manifest.files} for manifest in (a, b))
    found = {}
    for path in sorted({*old, *new}):
        before, after = old.get(path), new.get(path)
        if before is None or after is None or before.sha256 != after.sha256:
            found[path] = (before.size if before else 0, after.size if after else 0)
    return found


def accuracy_of(manifest: Manifest) -> dict[str, Any]:
    """Return the scores of the lineage: the report's on the test split, the artefact's on the validation split."""
    said = manifest.lineage
    rows = {f"{name}, test": row for name, row in _object(said.get("accuracy")).items()}
    rows["artefact, validation"] = said.get("validation")
    found = {name: _score(row, manifest) for name, row in rows.items()}
    return {name: score for name, score in found.items() if score is not None}


def _score(row: Any, manifest: Manifest) -> dict[str, Any] | None:
    document = _object(row)
    if not {"accuracy", "low", "high", "samples"} <= document.keys():
        return None
    where = f"lineage of {manifest.model} {manifest.version}"
    numbers = {key: canonical.as_float(document[key], where=where) for key in ("accuracy", "low", "high")}
    return {**numbers, "samples": document["samples"]}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def parity_of(contents: Contents) -> dict[str, Any]:
    """Return a bundle's parity table: "who / who" → integers compared, "who / reference: output" → real numbers.

    Pairs are sorted, so that tables of two bundles can be laid side by side.

    Raises:
        BundleError: ``parity.json`` is no such table.
    """
    if not any(entry.path == "parity.json" for entry in contents.manifest.files):
        return {}
    try:
        said = json.loads(contents.read("parity.json"))
        pairs = {" / ".join(sorted((row["first"], row["second"]))): _plain(row, _INTEGERS) for row in said["pairs"]}
        rows = said.get("fidelity", [])
        return pairs | {f"{row['runtime']} / {row['against']}: {row['output']}": _plain(row, _REALS) for row in rows}
    except (ValueError, KeyError, TypeError, AttributeError, ContractError, RecursionError) as error:
        where = str(contents.folder / "parity.json")
        raise BundleError("is not a parity table", where=where, fix="build the bundle again") from error


def _plain(row: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return some of a row's numbers; floats are hexadecimal texts in canonical JSON."""
    found = {key: row[key] for key in keys if row.get(key) is not None}
    return {
        key: value if isinstance(value, int) else canonical.as_float(value, where="parity.json")
        for key, value in found.items()
    }
