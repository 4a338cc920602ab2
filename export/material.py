# SPDX-License-Identifier: Apache-2.0
"""What a compressed model's folder gives to the exporter: the model, and validation samples by its recipe."""

import tempfile
from dataclasses import replace
from pathlib import Path

from compress import recipe as recipes
from compress.compressed import CompressedModel, load
from compress.quantize.plan import QuantizationPlan
from compress.sources import load_data
from edge_agent.runner.preprocess import apply_batch
from edge_contract import targets
from edge_contract.errors import DataError, ModelError, UnsupportedOperatorError
from edge_contract.manifest import Artefact
from export import bundle as bundles
from export import inspection, onnx_writer, parity, tflite_writer
from export.bundle import Built, Samples
from export.parity import ParityReport
from export.runtimes import available, parse_pythons

__all__ = ["bundle", "compare", "open_folder", "plan_of", "write"]


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
    data, _ = load_data(recipe)
    return compressed, Samples(data.validation.x, data.validation.y)


def write(folder: Path, out: Path, format_name: str, target_name: str) -> Artefact:
    """Write the plan in a folder as one ``onnx`` or ``tflite`` file for a target; no file is left when it is refused.

    Raises:
        TargetError: No such target.
        UnsupportedOperatorError: The target does not read the format, or lacks an operator.
        DataError: The file cannot be written.
    """
    target = targets.load(target_name)
    if format_name not in target.integers:
        known = ", ".join(target.integers)
        raise UnsupportedOperatorError(
            f"target '{target.name}' reads {known}", where=str(out), fix="export that format"
        )
    plan = plan_of(load(folder), str(folder))
    draft = out.with_name(f".{out.name}.draft")
    try:
        if format_name == "onnx":
            made = onnx_writer.write(plan, draft, target=target.name, activation=target.integers["onnx"].activation)
        else:
            made = tflite_writer.write(plan, draft, target=target.name)
        inspection.check_operators(inspection.describe(draft), target, where=str(out))
        draft.replace(out)
    except OSError as error:
        raise DataError(f"cannot be written ({error.strerror})", where=str(out), fix="make its folder") from error
    finally:
        draft.unlink(missing_ok=True)
    return replace(made, path=out.name)


def plan_of(compressed: CompressedModel, where: str) -> QuantizationPlan:
    """Return the plan of a compressed model.

    Raises:
        ModelError: Its recipe has no quantize step.
    """
    if compressed.plan is None:
        raise ModelError("no quantization plan", where=where, fix='add a step of kind "quantize" to the recipe')
    return compressed.plan


def compare(folder: Path, limit: int, pythons: list[str]) -> ParityReport:
    """Write both files of a compressed model to a temporary folder and compare every runtime that is at hand.

    Raises:
        ModelError: No plan.
        ParityError: The runtimes differ beyond the bound.
    """
    chosen = parse_pythons(pythons)
    compressed, samples = open_folder(folder)
    plan = plan_of(compressed, str(folder))
    inputs = apply_batch(compressed.preprocess, samples.raw[:limit])
    with tempfile.TemporaryDirectory() as name:
        written = bundles.write_artefacts(plan, Path(name), compressed.report.target)
        runtimes = [runtime for artefact in written for runtime in available(artefact.format, chosen)]
        executions = parity.execute([(Path(name) / a.path, a) for a in written], runtimes, inputs, chosen)
        return parity.check(plan, executions, inputs)


def bundle(
    folder: Path,
    out: Path,
    *,
    version: str,
    parent: str = "",
    pythons: list[str] | None = None,
    overwrite: bool = False,
) -> Built:
    """Build a bundle of the compressed model in a folder, with its recipe's validation split; see ``bundle.build``."""
    chosen = parse_pythons(pythons or [])
    compressed, samples = open_folder(folder)
    return bundles.build(
        compressed, out, version=version, samples=samples, parent=parent, pythons=chosen, overwrite=overwrite
    )
