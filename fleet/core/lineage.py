# SPDX-License-Identifier: Apache-2.0
"""Where a model version comes from and how good it is, read from its manifest: facts, family tree, differences.

A bundle's ``lineage`` holds digests of recipe, data, teacher, plan and code, the parent bundle, and scores with
95 % intervals. Documents of other makers may hold anything there: what is not of the expected form counts as unknown.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edge_contract.canonical import as_float
from edge_contract.errors import ContractError
from fleet.core.registry import ModelVersion

__all__ = [
    "DIGESTS",
    "Accuracy",
    "Relative",
    "accuracy",
    "checks_passed",
    "difference",
    "facts",
    "model_bytes",
    "parent",
    "relatives",
    "waivers",
]

DIGESTS: Final = ("recipe", "data", "teacher", "plan", "code")
"""What a lineage tells by SHA-256."""

_NOT_OURS: Final = ("teacher", "entering")


@dataclass(frozen=True)
class Accuracy:
    """How often a version's artefact was right.

    Attributes:
        value, low, high: Share of right answers with its 95 % interval.
        samples: Over so many.
        split: ``test`` or ``validation``.
        data: SHA-256 of the data; empty if it is not told.
        metric: What "right" means, such as ``top1`` or ``agreement``.
    """

    value: float
    low: float
    high: float
    samples: int
    split: str
    data: str = ""
    metric: str = ""

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def _lineage(version: ModelVersion) -> Mapping[str, Any]:
    found = getattr(version.manifest, "lineage", None)
    return found if isinstance(found, Mapping) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def parent(version: ModelVersion) -> str:
    """Return the bundle id of the version that this one improves on; empty if it tells none."""
    return _text(_lineage(version).get("parent"))


def accuracy(version: ModelVersion) -> Accuracy | None:
    """Return the accuracy of what a version ships, None where its lineage tells none.

    The test split goes before the validation split, and the row that the bundle names as shipped, or that is named
    as its artefacts' precision, before the others. The teacher's row is never the answer.
    """
    said = _lineage(version)
    rows = said.get("accuracy")
    rows = rows if isinstance(rows, Mapping) else {}
    names = [_text(said.get("shipped")), *sorted(_precisions(version))]
    names += [name for name in rows if name not in (*names, *_NOT_OURS)] if len(rows) == 1 else []
    found = [_score(rows.get(name), "test", said) for name in names]
    found.append(_score(said.get("validation"), "validation", said))
    return next((score for score in found if score is not None), None)


def _score(row: Any, split: str, said: Mapping[str, Any]) -> Accuracy | None:
    if not isinstance(row, Mapping):
        return None
    try:
        value, low, high = (as_float(row.get(key)) for key in ("accuracy", "low", "high"))
    except ContractError:
        return None
    samples = row.get("samples")
    inputs = said.get("inputs")
    data = _text(said.get("data")) or (_text(inputs.get("sha256")) if isinstance(inputs, Mapping) else "")
    if not isinstance(samples, int) or isinstance(samples, bool) or not 0 <= low <= value <= high <= 1:
        return None
    return Accuracy(value, low, high, samples, split, data, _text(said.get("metric")))


def waivers(version: ModelVersion) -> list[dict[str, str]]:
    """Return the checks that failed and were waived when the bundle was made: name, kind, figure, limit, reason."""
    keys = ("name", "kind", "figure", "limit", "reason")
    found = (one for one in _checks(version, "waived") if isinstance(one, Mapping))
    return [{key: _text(one.get(key)) for key in keys} for one in found]


def checks_passed(version: ModelVersion) -> list[str]:
    """Return the names of the checks that the model passed before the bundle was made."""
    return [name for name in _checks(version, "passed") if isinstance(name, str)]


def _checks(version: ModelVersion, key: str) -> Sequence[Any]:
    said = _lineage(version).get("checks")
    found = said.get(key) if isinstance(said, Mapping) else None
    return found if isinstance(found, Sequence) and not isinstance(found, str) else ()


def _artefacts(version: ModelVersion) -> Sequence[Any]:
    return getattr(version.manifest, "artefacts", ())


def _precisions(version: ModelVersion) -> set[str]:
    return {artefact.precision for artefact in _artefacts(version)}


def model_bytes(version: ModelVersion) -> int:
    """Return the size of the largest model file in bytes; 0 for a bundle without any."""
    return max((version.manifest.file(artefact.path).size for artefact in _artefacts(version)), default=0)


def facts(version: ModelVersion, *, channels: Iterable[str] = (), retired: bool = False) -> dict[str, Any]:
    """Return what a version can be searched by: words, numbers, and lists of words.

    Args:
        version: A registered version.
        channels: Release channels that it stands in.
        retired: Whether it was retired.
    """
    said, score = _lineage(version), accuracy(version)
    artefacts = _artefacts(version)
    return {
        "model": version.model,
        "version": version.version,
        "bundle": version.bundle,
        "task": getattr(version.manifest, "task", "software"),
        "registered_at": version.registered_at,
        "size": sum(entry.size for entry in version.manifest.files),
        "model_bytes": model_bytes(version),
        "precision": sorted(_precisions(version)),
        "target": sorted({artefact.target for artefact in artefacts}),
        "format": sorted({artefact.format for artefact in artefacts}),
        "runtime": sorted({name for artefact in artefacts for name in artefact.runtimes}),
        "classes": len(getattr(version.manifest, "labels", ())),
        "metric": _text(said.get("metric")),
        "parent": parent(version),
        **{key: _text(said.get(key)) for key in DIGESTS},
        "adopted": "adopted" in said,
        "accuracy": score.value if score else None,
        "accuracy_low": score.low if score else None,
        "samples": score.samples if score else None,
        "waived": [one["name"] for one in waivers(version)],
        "channel": sorted(channels),
        "retired": retired,
    }


@dataclass(frozen=True)
class Relative:
    """A version in a family tree; ``depth`` is negative for ancestors, positive for descendants.

    ``known`` is False for an ancestor that is not registered (any more): then only its bundle id is told.
    """

    bundle: str
    depth: int
    known: bool


def relatives(versions: Sequence[ModelVersion], bundle: str) -> list[Relative]:
    """Return a bundle's family, oldest ancestor first, then itself, then descendants depth first.

    A lineage that leads back to itself (a forged parent) ends where it closes.
    """
    known = {version.bundle: version for version in versions}
    up: list[Relative] = []
    seen, one = {bundle}, bundle
    while one in known and (above := parent(known[one])) and above not in seen:
        seen.add(above)
        up.append(Relative(above, -len(up) - 1, known=above in known))
        one = above
    children: dict[str, list[ModelVersion]] = {}
    for version in sorted(versions, key=lambda v: (v.registered_at, v.version)):
        children.setdefault(parent(version), []).append(version)
    down, stack = list[Relative](), [(child.bundle, 1) for child in reversed(children.get(bundle, []))]
    while stack:
        name, depth = stack.pop()
        if name in seen:
            continue
        seen.add(name)
        down.append(Relative(name, depth, known=True))
        stack += [(child.bundle, depth + 1) for child in reversed(children.get(name, []))]
    return [*reversed(up), Relative(bundle, 0, known=bundle in known), *down]


def difference(one: ModelVersion, two: ModelVersion) -> dict[str, Any]:
    """Return what differs between two versions: files, sizes, facts and digests of the lineage.

    ``files`` has path → [bytes before, bytes after], 0 where there is none; equal files are left out. ``kept`` is
    how many bytes of the second version a device with the first one has already.
    """
    old = {entry.path: entry for entry in one.manifest.files}
    new = {entry.path: entry for entry in two.manifest.files}
    files = {
        path: [old[path].size if path in old else 0, new[path].size if path in new else 0]
        for path in sorted({*old, *new})
        if path not in old or path not in new or old[path].sha256 != new[path].sha256
    }
    held = {entry.sha256 for entry in one.manifest.files}
    kept = {entry.sha256: entry.size for entry in two.manifest.files if entry.sha256 in held}
    a, b = facts(one), facts(two)
    left_out = ("model", "version", "bundle", "registered_at", "channel", "retired")
    changed = {key: [a[key], b[key]] for key in a if key not in left_out and a[key] != b[key]}
    return {"files": files, "kept": sum(kept.values()), "facts": changed}
