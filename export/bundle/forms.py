# SPDX-License-Identifier: Apache-2.0
"""A bundle of a model that no plan expresses: one ONNX file in float32, or with rounded weights.

The file is proved twice. It must answer what the simulation answers, on which the accuracy was measured
(``export.module``); then it is run, recorded and sealed like a file of another maker (``export.adopt``).
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from compress.checks.gate import Waiver, gate
from compress.compressed import CompressedModel
from edge_agent.runner.preprocess import apply_batch
from edge_contract import targets
from edge_contract.errors import DataError
from export.adopt.adoption import Wish, adopt
from export.adopt.inputs import Given
from export.bundle import golden, lineage
from export.bundle.builder import Built, Samples
from export.module.exporter import write_form

__all__ = ["build_form"]

_PROVED: Final = 64


def build_form(
    compressed: CompressedModel,
    out: Path,
    *,
    version: str,
    samples: Samples,
    parent: str = "",
    pythons: Mapping[str, Path] | None = None,
    overwrite: bool = False,
    targets_named: Sequence[str] = (),
    waived: Sequence[Waiver] = (),
    loop: Mapping[str, Any] | None = None,
) -> Built:
    """Write a bundle of a compressed model in its ``form``; arguments and errors are those of ``builder.build``.

    Raises:
        DataError: No samples.
        CheckError: A check of the recipe failed and is not waived.
        UnsupportedOperatorError: The form rounds no layer of the model.
        ParityError: ONNX Runtime answers otherwise than the simulation.
    """
    if not len(samples.raw):
        raise DataError("no samples", where=compressed.name, fix="give at least 128 labelled validation inputs")
    checked = lineage.of_checks(gate(compressed.report.checks, waived, compressed.name))
    x = np.moveaxis(apply_batch(compressed.preprocess, samples.raw[:_PROVED]), -1, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        inputs = torch.from_numpy(np.ascontiguousarray(x, np.float32))
        made = write_form(compressed.model, inputs, path, form=compressed.form, outputs=("logits",))
        fidelity = golden.rounded(made.fidelity["logits"].to_json())
        proved = {"form": made.precision, "notes": list(made.notes), "fidelity": fidelity}
        wish = Wish(
            name=compressed.name,
            version=version,
            task="classification",
            preprocess=compressed.preprocess,
            labels=compressed.labels,
            postprocess="softmax",
            targets=tuple(targets_named) or _targets(compressed.report.target),
            roles={"logits": "logits"},
            parent=parent,
            precision=compressed.form,
            lineage={**_lineage(compressed), **proved, **checked, **lineage.of_loop(loop)},
        )
        given = Given.of(samples.raw, samples.labels, "validation split")
        return adopt([path], out, wish, given, pythons=pythons, overwrite=overwrite)


def _targets(recipe_target: str) -> tuple[str, ...]:
    """ONNX for a PC, and for the recipe's target where that reads it."""
    names = ["generic-x86"]
    if recipe_target not in ("", *names) and "onnx" in targets.load(recipe_target).integers:
        names.append(recipe_target)
    return tuple(f"{name}:onnx" for name in names)


def _lineage(compressed: CompressedModel) -> dict[str, Any]:
    report = compressed.report
    return {
        "recipe": report.recipe_digest,
        "data": report.data_digest,
        "teacher": report.teacher_digest,
        "metric": report.metric,
        "accuracy": {row.name: row.score.to_json() for row in report.test},
        "shipped": report.test[-1].name if report.test else "",
        "versions": dict(report.versions),
    }
