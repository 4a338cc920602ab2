# SPDX-License-Identifier: Apache-2.0
"""What a compressed model's folder gives to the exporter: the model, and validation samples by its recipe."""

import tempfile
from pathlib import Path

from compress import recipe as recipes
from compress.compressed import CompressedModel, load
from compress.sources import load_data
from edge_agent.runner.preprocess import apply_batch
from edge_contract.errors import ModelError
from export import bundle as bundles
from export import parity
from export.bundle import Built, Samples
from export.parity import ParityReport
from export.runtimes import available, parse_pythons

__all__ = ["bundle", "compare", "open_folder"]


def open_folder(folder: Path) -> tuple[CompressedModel, Samples]:
    """Return the model in a folder, and its recipe's validation split.

    Raises:
        DataError: The folder is not one, or its data source fails.
        RecipeError: The data source's name is wrong.
    """
    compressed = load(folder)
    recipe = recipes.parse(compressed.recipe_text, folder / "recipe.toml")
    data, _ = load_data(recipe)
    return compressed, Samples(data.validation.x, data.validation.y)


def compare(folder: Path, limit: int, pythons: list[str]) -> ParityReport:
    """Write both files of a compressed model to a temporary folder and compare every runtime that is at hand.

    Raises:
        ModelError: No plan.
        ParityError: The runtimes differ beyond the bound.
    """
    chosen = parse_pythons(pythons)
    compressed, samples = open_folder(folder)
    if compressed.plan is None:
        raise ModelError("no quantization plan", where=str(folder), fix='add a step of kind "quantize"')
    inputs = apply_batch(compressed.preprocess, samples.raw[:limit])
    with tempfile.TemporaryDirectory() as name:
        written = bundles.write_artefacts(compressed.plan, Path(name), compressed.report.target)
        runtimes = [runtime for artefact in written for runtime in available(artefact.format, chosen)]
        executions = parity.execute([(Path(name) / a.path, a) for a in written], runtimes, inputs, chosen)
        return parity.check(compressed.plan, executions, inputs)


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
