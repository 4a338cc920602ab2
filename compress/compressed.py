# SPDX-License-Identifier: Apache-2.0
"""The result of a recipe, in memory and as a folder.

::

    FOLDER/
    ├── model.pt2      the float model, an exported program with a free batch dimension
    ├── plan.npz       the quantization plan, if the recipe quantizes
    ├── model.json     name, preprocessing, class names, digest of the plan
    ├── recipe.toml    the recipe, verbatim
    ├── report.html    for people
    └── report.json    for programs; written last, so a folder that has it is whole
"""

import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress import report_files as reports
from compress.quantize.plan import QuantizationPlan
from compress.quantize.weight_only import FORMS
from compress.report import CompressionReport
from compress.sources.exported import load_exported
from edge_contract.errors import DataError, ModelError
from edge_contract.fields import Fields
from edge_contract.preprocess import Preprocessing
from edge_contract.preprocess import parse as parse_preprocess

__all__ = ["CompressedModel", "load"]

SCHEMA = "strop.compressed/1"
FILES = ("model.pt2", "plan.npz", "model.json", "recipe.toml", "report.html", reports.NAME)


@dataclass(frozen=True)
class CompressedModel:
    """A compressed model with everything that is known about it.

    Attributes:
        name: Of the recipe.
        model: Float, eval mode, batch normalisation not folded; inputs float32 [N,C,H,W], logits [N,K].
        plan: Every integer of the int8 model, or None if the recipe has no quantize step.
        preprocess: Raw pixels → inputs.
        labels: Names of the classes, [K].
        report: What it cost.
        recipe_text: The recipe, verbatim.
        input_shape: (C, H, W) of one input, (C, T) of a series.
        recipe_path: Where the recipe lay: its relative files and modules are looked for beside it.
        form: What is shipped where there is no plan: ``float32``, or one of ``quantize.weight_only.FORMS``.
    """

    name: str
    model: nn.Module
    plan: QuantizationPlan | None
    preprocess: Preprocessing
    labels: tuple[str, ...]
    report: CompressionReport
    recipe_text: str
    input_shape: tuple[int, ...]
    recipe_path: Path = Path("recipe.toml")
    form: str = "float32"

    def save(self, folder: Path) -> None:
        """Write the folder; its old files are replaced.

        Raises:
            ModelError: The model cannot be exported.
            DataError: The disk is full or the folder cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / reports.NAME).unlink(missing_ok=True)
            _export(self.model, self.input_shape, folder / "model.pt2")
            (folder / "plan.npz").unlink(missing_ok=True)
            if self.plan is not None:
                self.plan.save(folder / "plan.npz")
            (folder / "model.json").write_text(json.dumps(self._facts(), indent=2) + "\n", encoding="utf-8")
            (folder / "recipe.toml").write_text(self.recipe_text, encoding="utf-8")
            reports.write(self.report, folder)
        except OSError as error:
            raise DataError(f"cannot be written: {error}", where=str(folder), fix="free some space") from error

    def _facts(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "name": self.name,
            "preprocess": self.preprocess.to_json(),
            "labels": list(self.labels),
            "input_shape": list(self.input_shape),
            "recipe_path": str(self.recipe_path.absolute()),
            "plan": "" if self.plan is None else self.plan.digest,
            "form": self.form,
        }


def _export(model: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    # An example of two: torch.export takes a dimension of one for a constant.
    example = torch.zeros(2, *shape)
    batch = torch.export.Dim("batch", min=1)
    try:
        program = torch.export.export(model.eval(), (example,), dynamic_shapes=({0: batch},))
        held = BytesIO()  # PyTorch's own writer ends the process where the disk is full
        torch.export.save(program, held)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        fix = "write its forward without Python branches on values"
        raise ModelError(f"the model cannot be exported: {reason}", fix=fix) from error
    path.write_bytes(held.getbuffer())


class _Program(nn.Module):
    """An exported program that takes ``eval()`` in good part: it is in eval mode and stays there."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = [program]  # in a list: hidden from nn.Module, whose train() an exported program refuses
        for name, parameter in program.named_parameters():
            self.register_parameter(name.replace(".", "_"), parameter)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.program[0](x)
        return logits


def load(folder: Path) -> CompressedModel:
    """Return the compressed model in a folder.

    Raises:
        DataError: The folder is not one, or a file is missing or damaged; names it.
    """
    report = reports.read(folder)
    missing = [name for name in FILES if name != "plan.npz" and not (folder / name).is_file()]
    if missing:
        raise DataError(f"{missing[0]} is missing", where=str(folder), fix="run the recipe again")
    try:
        facts = Fields(json.loads((folder / "model.json").read_text()), str(folder / "model.json"))
        name, labels, shape = facts.text("name"), facts.texts("labels"), facts.integers("input_shape")
        preprocess = parse_preprocess(facts.object("preprocess"))
        if len(shape) < 2:
            raise ValueError(f"input_shape {list(shape)}")
        recipe_path = Path(facts.text("recipe_path", str(folder / "recipe.toml")))
        form = facts.text("form", "float32", among=("float32", *FORMS))
        program = load_exported((folder / "model.pt2").read_bytes()).module()
    except Exception as error:  # zipfile, pickle and torch each fail in their own words
        raise DataError(f"damaged: {error}", where=str(folder), fix="run the recipe again") from error
    plan = _plan(folder, facts.text("plan"))
    text = (folder / "recipe.toml").read_text(encoding="utf-8")
    return CompressedModel(name, _Program(program), plan, preprocess, labels, report, text, shape, recipe_path, form)


def _plan(folder: Path, digest: str) -> QuantizationPlan | None:
    if not digest:
        return None
    file = folder / "plan.npz"
    if not file.is_file():
        raise DataError("plan.npz is missing", where=str(folder), fix="run the recipe again")
    plan = QuantizationPlan.load(file)
    if plan.digest != digest:
        raise DataError("plan.npz belongs to another model", where=str(folder), fix="run the recipe again")
    return plan
