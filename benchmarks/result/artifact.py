# SPDX-License-Identifier: Apache-2.0
"""Facts about the timed bytes: size and format of the file, precision and counts from its bundle where it has one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.plan import BenchPlan
from benchmarks.result.schema import Artifact
from edge_contract.errors import MeasurementError
from edge_contract.manifest import MANIFEST_NAME, Manifest

__all__ = ["artifact_of", "manifest_of"]


def manifest_of(plan: BenchPlan) -> Manifest | None:
    """Return the manifest of the plan's bundle; None for a bare file."""
    if not plan.bundle:
        return None
    try:
        return Manifest.from_bytes((Path(plan.bundle) / MANIFEST_NAME).read_bytes())
    except OSError as error:
        raise MeasurementError(f"cannot be read ({error.strerror})", where=f"{plan.bundle}/{MANIFEST_NAME}") from error


def artifact_of(plan: BenchPlan) -> Artifact:
    """Return what is known of the plan's file.

    Raises:
        MeasurementError: The file or its bundle's manifest is gone.
        ManifestError: The manifest is malformed.
    """
    try:
        size = Path(plan.artefact).stat().st_size
    except OSError as error:
        raise MeasurementError(f"cannot be read ({error.strerror})", where=plan.artefact) from error
    manifest = manifest_of(plan)
    if manifest is None:
        return Artifact(plan.sha256, plan.format, size, name=Path(plan.artefact).stem)
    ours = [one for one in manifest.artefacts if manifest.file(one.path).sha256 == plan.sha256]
    cost = manifest.lineage.get("cost", {})
    return Artifact(
        plan.sha256,
        plan.format,
        size,
        name=f"{manifest.model} {manifest.version}",
        bundle=plan.bundle_digest,
        precision=ours[0].precision if ours else "",
        params=_count(cost, "parameters"),
        macs=_count(cost, "macs"),
    )


def _count(cost: Any, name: str) -> int | None:
    found = cost.get(name) if isinstance(cost, Mapping) else None
    return found if isinstance(found, int) else None
