# SPDX-License-Identifier: Apache-2.0
"""Between which bundles patches are worth making: from what devices run to what they may soon be told to run."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edge_contract.deltas import EVENT, MIN_BYTES, partner
from edge_contract.manifest import BundleFile, Manifest
from fleet.core.inventory import DeviceRecord
from fleet.core.registry import ModelVersion

__all__ = ["MAX_BASES", "FilePair", "blocked_pairs", "file_pairs", "goals"]

MAX_BASES: Final = 4
"""Patches towards one bundle start from so many others at most: those that most devices run."""
MAX_BYTES: Final = 200_000_000
"""Larger files are sent whole: making a patch holds both in memory."""


@dataclass(frozen=True)
class FilePair:
    """One patch to be made: SHA-256 of base and target."""

    base: str
    target: str


def goals(versions: Sequence[ModelVersion], rolled_out: Iterable[str]) -> list[ModelVersion]:
    """Return the bundles that devices may soon fetch: of each model the newest, and those of open rollouts.

    Args:
        versions: All that are registered, newest first.
        rolled_out: Bundles of rollouts that are not at their end.
    """
    newest = {version.model: version.bundle for version in reversed(versions)}
    wanted = {*newest.values(), *rolled_out}
    return [version for version in versions if version.bundle in wanted]


def file_pairs(
    goal: ModelVersion, versions: Mapping[str, ModelVersion], devices: Iterable[DeviceRecord]
) -> list[FilePair]:
    """Return the files to make patches between, so that most devices reach a bundle soon.

    Args:
        goal: The bundle.
        versions: Bundle id → registered version.
        devices: All of them, with what they run.
    """
    running = Counter(record.running.get(goal.model, "") for record in devices)
    bases = [bundle for bundle, _ in running.most_common() if bundle in versions and bundle != goal.bundle]
    found = []
    for bundle in bases[:MAX_BASES]:
        base = versions[bundle].manifest
        if not (isinstance(base, Manifest) and isinstance(goal.manifest, Manifest)):
            continue  # wheels are compressed: nothing is alike in two of them
        held = {entry.sha256 for entry in base.files}
        for entry in goal.manifest.files:
            mate = None if entry.sha256 in held else partner(base, goal.manifest, entry)
            if mate is not None and _is_worth_it(entry) and _is_worth_it(mate):
                found.append(FilePair(mate.sha256, entry.sha256))
    return list(dict.fromkeys(found))


def _is_worth_it(entry: BundleFile) -> bool:
    return MIN_BYTES <= entry.size <= MAX_BYTES


def blocked_pairs(body: Mapping[str, object]) -> list[FilePair]:
    """Return the pairs that a device's event blames: their patch gave other bytes than it promised.

    Example:
        >>> blocked_pairs({"kind": "fetched", "files": [{"base": "a", "sha256": "b", "blame": "patch"}]})
        [FilePair(base='a', target='b')]
    """
    files = body.get("files")
    if body.get("kind") != EVENT or not isinstance(files, list):
        return []
    blamed = [entry for entry in files[:100] if isinstance(entry, dict) and entry.get("blame") == "patch"]
    return [FilePair(str(entry.get("base")), str(entry.get("sha256"))) for entry in blamed]
