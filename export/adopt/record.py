# SPDX-License-Identifier: Apache-2.0
"""What an adopted bundle records of its files: golden answers, reference profiles, where they came from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.evaluate import score
from edge_agent.runner.model import Description
from edge_contract import canonical
from edge_contract.manifest import Artefact
from edge_contract.profile import ReferenceProfile
from export.adopt.inputs import Given
from export.bundle import artefacts
from export.bundle import golden as golden_files
from export.bundle.builder import GOLDEN_INPUTS, chosen
from export.bundle.folder import write
from export.bundle.lineage import code_digest
from export.bundle.recorded import Recorded
from export.bundle.reference import MIN_REFERENCE, build_profile
from export.bundle.reference_tasks import build_task_profile
from export.bundle.replayed import replayed
from export.runtimes.execution import Execution

__all__ = ["golden", "lineage", "profiles"]

_GOLDEN_BYTES: Final = 2 << 20  # of all golden inputs and answers: they are read and run at every load
_LEAST_GOLDEN: Final = 4
_LEAST_TOLERANCE: Final = 1e-3  # of a float file: another CPU adds in another order
_MARGIN: Final = 4.0  # times what the runtimes here differ by
_MAX_STEPS: Final = 2

Array = NDArray[Any]
Executions = Mapping[str, Sequence[Execution]]


def golden(folder: Path, made: Sequence[Artefact], executions: Executions, given: Given, task: str) -> None:
    """Record inputs and answers; they were all computed already."""
    known = artefacts.by_path(made)
    first = golden_files.answers(_first(executions), made[0], task)
    rows = _golden_rows(given, len(first), first[:1].nbytes)
    answers = {
        path: [(e, golden_files.answers(e, known[path], task)[rows]) for e in found]
        for path, found in executions.items()
    }
    everyone = [one for found in answers.values() for _, one in found]
    reference, spread = everyone[0], max(float(np.abs(one - everyone[0].astype(np.float64)).max()) for one in everyone)
    hashes: list[dict[str, str]] = []
    if reference.dtype.kind == "f":
        rule: dict[str, Any] = {
            "tolerance": max(_LEAST_TOLERANCE, _MARGIN * spread / (float(np.abs(reference).max()) or 1.0))
        }
    else:
        rule = {"max_steps": max(_MAX_STEPS, int(spread) + 1)}
        hashes = [h for path, found in answers.items() for h in golden_files.entries(folder / path, known[path], found)]
    golden_files.record(folder, given.raw[rows], reference, rule, hashes, what="outputs")


def _golden_rows(given: Given, most: int, answer_bytes: int) -> Array:
    """Choose inputs for the self-test: every class, where classes are known, and not too many bytes."""
    count = max(_LEAST_GOLDEN, min(GOLDEN_INPUTS, _GOLDEN_BYTES // (given.raw[:1].nbytes + answer_bytes)))
    labels = given.labels if given.labels is not None else np.zeros(len(given.raw), np.int64)
    return chosen(labels[:most], count)


def _first(executions: Executions) -> Execution:
    return next(found[0] for found in executions.values())


def profiles(
    folder: Path, made: Sequence[Artefact], executions: Executions, described: Description, given: Given
) -> dict[str, str]:
    """Write the reference profile of each file, where there are enough inputs; return path → its path.

    A classifier needs their classes, too; other tasks do not.
    """
    count = min(len(rows) for found in executions.values() for rows in found[0].codes.values())
    if count < MIN_REFERENCE or (described.task == "classification" and not _has_classes(described, made, given)):
        return {}
    paths = {}
    for path, artefact in artefacts.by_path(made).items():
        facts = {"artefact": canonical.digest((folder / path).read_bytes()), "runtime": artefact.runtimes[0]}
        execution, own = executions[path][0], replace(described, artefact=artefact)
        if described.task == "classification":
            profile = _of_classes(execution, own, given, facts)
        else:
            profile = build_task_profile(replayed(execution, own), given.raw[:count], **facts)
        paths[path] = f"profiles/{path}.json"
        write(folder / paths[path], profile.to_bytes())
    return paths


def _has_classes(described: Description, made: Sequence[Artefact], given: Given) -> bool:
    return given.labels is not None and bool(described.labels) and made[0].output("logits") is not None


def _of_classes(
    execution: Execution, described: Description, given: Given, facts: Mapping[str, str]
) -> ReferenceProfile:
    assert given.labels is not None  # asked before
    count = len(execution.values["logits"])
    return build_profile(
        Recorded.of(execution),
        given.raw[:count],
        given.labels[:count],
        names=described.labels,
        preprocess=described.preprocess,
        postprocess=described.postprocess,
        **facts,
    )


def lineage(models: Sequence[Path], given: Given, executions: Executions, parent: str) -> dict[str, Any]:
    """Return where a bundle comes from: its files, its inputs, and how good it is where classes are known."""
    found: dict[str, Any] = {
        "adopted": [
            {"file": path.name, "size": path.stat().st_size, "sha256": canonical.digest(path.read_bytes())}
            for path in models
        ],
        "inputs": {"source": given.source, "count": len(given.raw), "sha256": given.digest},
        "code": code_digest(),
        "parent": parent,
    }
    logits = _first(executions).values.get("logits")
    if given.labels is not None and logits is not None:
        right = logits.argmax(axis=1) == given.labels[: len(logits)]
        found["validation"] = score(int(right.sum()), len(right)).to_json()
    return found
