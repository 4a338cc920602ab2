# SPDX-License-Identifier: Apache-2.0
"""What a compressed model's folder gives to the exporter: the model, and validation samples by its recipe."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress import recipe as recipes
from compress import report_files as reports
from compress.checks.gate import Waiver, gate
from compress.compressed import CompressedModel, load
from compress.quantize.plan import QuantizationPlan
from compress.quantize.step import folded
from compress.sources import load_validation
from edge_agent.runner.preprocess import apply_batch
from edge_contract import targets
from edge_contract.errors import DataError, ModelError, UsageError
from edge_contract.manifest import Artefact
from export.bundle import artefacts
from export.bundle import builder as bundles
from export.bundle.artefacts import Request
from export.bundle.builder import Built, Samples
from export.bundle.forms import build_form
from export.onnx import float_writer as float_onnx_writer
from export.parity import gate as parity_gate
from export.parity.gate import ParityReport
from export.runtimes.execution import parse_pythons
from export.tflite import float_writer as float_tflite_writer

PRECISIONS = ("int8", "float32")

__all__ = ["PRECISIONS", "bundle", "compare", "open_folder", "plan_of", "write"]


def open_folder(folder: Path) -> tuple[CompressedModel, Samples]:
    """Return the model in a folder, and its recipe's validation split.

    Raises:
        DataError: The folder is not one, or its data source fails.
        RecipeError: The data source's name is wrong.
    """
    compressed = load(folder)
    # Beside the recipe lie its relative files; a folder that was carried elsewhere has only its copy.
    place = compressed.recipe_path if compressed.recipe_path.is_file() else folder / "recipe.toml"
    recipe = recipes.parse(compressed.recipe_text, place)
    validation = load_validation(recipe)
    return compressed, Samples(validation.x, validation.y)


def write(folder: Path, out: Path, format_name: str, target_name: str, *, precision: str = "int8") -> Artefact:
    """Write the model in a folder as one ``onnx`` or ``tflite`` file for a target; no file is left when it is refused.

    Raises:
        TargetError: No such target.
        UnsupportedOperatorError: The target does not read the format, or lacks an operator.
        UsageError: Another precision than ``int8`` and ``float32``.
        DataError: The file cannot be written.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision '{precision}'", fix=f"use {' or '.join(PRECISIONS)}")
    request = Request(targets.load(target_name), format_name)
    request.refuse_unread(str(out))
    draft = out.with_name(f".{out.name}.draft")
    plan = plan_of(load(folder), str(folder)) if precision == "int8" else None
    try:
        if plan is not None:
            made = artefacts.write_one(plan, draft, request, where=str(out))
        else:
            made = _write_float(folder, draft, request)
        draft.replace(out)
    except OSError as error:
        raise DataError(f"cannot be written ({error.strerror})", where=str(out), fix="make its folder") from error
    finally:
        draft.unlink(missing_ok=True)
    return replace(made, path=out.name)


def _write_float(folder: Path, draft: Path, request: Request) -> Artefact:
    compressed, samples = open_folder(folder)
    example = np.moveaxis(apply_batch(compressed.preprocess, samples.raw[:1]), -1, 1)
    graph = folded(compressed.model, torch.from_numpy(np.ascontiguousarray(example, np.float32)))
    write_float = float_onnx_writer.write if request.format == "onnx" else float_tflite_writer.write
    return write_float(graph, draft, target=request.target.name)


def plan_of(compressed: CompressedModel, where: str) -> QuantizationPlan:
    """Return the plan of a compressed model.

    Raises:
        ModelError: Its recipe has no quantize step.
    """
    if compressed.plan is None:
        raise ModelError("no quantization plan", where=where, fix='add a step of kind "quantize" to the recipe')
    return compressed.plan


def compare(folder: Path, limit: int, pythons: list[str], targets_named: Sequence[str] = ()) -> ParityReport:
    """Write the files of a compressed model to a temporary folder and compare every runtime that is at hand.

    Raises:
        ModelError: No plan.
        ParityError: The runtimes differ beyond the bound.
    """
    chosen = parse_pythons(pythons)
    compressed, samples = open_folder(folder)
    plan = plan_of(compressed, str(folder))
    inputs = apply_batch(compressed.preprocess, samples.raw[:limit])
    with tempfile.TemporaryDirectory() as name:
        asked = artefacts.requests(targets_named, compressed.report.target)
        written = artefacts.claimed(artefacts.write_all(plan, Path(name), asked), asked, chosen)
        executions = artefacts.told_apart(artefacts.execute(Path(name), written, inputs, chosen, old_of=asked))
        return parity_gate.check(plan, executions, inputs, pythons=chosen)


def bundle(
    folder: Path,
    out: Path,
    *,
    version: str,
    parent: str = "",
    pythons: list[str] | None = None,
    overwrite: bool = False,
    targets_named: Sequence[str] = (),
    waived: Sequence[Waiver] = (),
    loop: Mapping[str, Any] | None = None,
) -> Built:
    """Build a bundle of the compressed model in a folder, with its recipe's validation split; see ``bundle.build``.

    Raises:
        CheckError: A check of the recipe failed, and ``waived`` does not name it.
    """
    chosen = parse_pythons(pythons or [])
    gate(reports.read(folder).checks, waived, str(folder))  # before data are read and files are made
    compressed, samples = open_folder(folder)
    if compressed.plan is None and compressed.form != "float32":
        return build_form(
            compressed,
            out,
            version=version,
            samples=samples,
            parent=parent,
            pythons=chosen,
            overwrite=overwrite,
            targets_named=targets_named,
            waived=waived,
            loop=loop,
        )
    return bundles.build(
        compressed,
        out,
        version=version,
        samples=samples,
        parent=parent,
        pythons=chosen,
        overwrite=overwrite,
        targets=targets_named,
        waived=waived,
        loop=loop,
    )
