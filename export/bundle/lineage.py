# SPDX-License-Identifier: Apache-2.0
"""Where a bundle comes from: digests of recipe, data, teacher, plan and code, and how good it was found to be."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from compress.compressed import CompressedModel
from compress.evaluate import score
from compress.quantize.plan import QuantizationPlan
from export.runtimes.execution import Execution

__all__ = ["code_digest", "of", "of_checks", "of_loop"]

_PACKAGES = ("compress", "edge_agent", "edge_contract", "export")


def of(
    compressed: CompressedModel, plan: QuantizationPlan, execution: Execution, labels: NDArray[Any], parent: str
) -> dict[str, Any]:
    """Return the lineage of a bundle; ``shipped`` names the row of ``accuracy`` that is the artefacts'.

    Args:
        compressed: The model with its report; accuracies on the test split are the report's.
        plan: What was written.
        execution: Answers of an artefact to the validation inputs.
        labels: Classes of the validation inputs.
        parent: Id of the bundle before, or empty.
    """
    report = compressed.report
    right = execution.codes["logits"].argmax(axis=1) == labels
    return {
        "recipe": report.recipe_digest,
        "data": report.data_digest,
        "teacher": report.teacher_digest,
        "plan": plan.digest,
        "code": code_digest(),
        "parent": parent,
        "metric": report.metric,
        "calibration_samples": plan.samples,
        "accuracy": {row.name: row.score.to_json() for row in report.test},
        "shipped": report.test[-1].name if report.test else "",
        "validation": score(int(right.sum()), len(right)).to_json(),
        "versions": dict(report.versions),
        "notes": [*plan.notes],
    }


def of_checks(checked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``compress.checks.gate`` let pass, under ``checks``; nothing for a report without checks."""
    return {"checks": dict(checked)} if checked else {}


def of_loop(loop: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the healing loop says of its run (signal, captured inputs), under ``loop``; nothing without one."""
    return {"loop": dict(loop)} if loop else {}


def code_digest() -> str:
    """Return the SHA-256 over every Python file that decides what a bundle holds, in the order of their names."""
    root = Path(__file__).resolve().parents[2]
    total = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            total.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()
