# SPDX-License-Identifier: Apache-2.0
"""The stories in ``examples/`` as a person finds them: each recipe loads and plans, and small ones end in a bundle."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from compress import dry_run, pipeline, recipe, sources
from edge_contract.errors import RecipeError
from examples.fashion.data import FOLDER
from export.bundle import material

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
needs_fashion = pytest.mark.skipif(not FOLDER.is_dir(), reason="no data: apt-get install dataset-fashion-mnist")
needs_watch = pytest.mark.skipif(importlib.util.find_spec("seglearn") is None, reason="no seglearn")
needs_lite0 = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("efficientnet_lite_pytorch", "foolbox", "skimage")),
    reason="no EfficientNet-Lite0",
)

FEW = """
from compress.sources import DataSplits, Split
from examples.{name}.data import augment, load as load_all

COUNTS = {{"train": {train}, "calibration": 64, "validation": 128, "test": 64}}

def load():
    whole = load_all()
    parts = {{}}
    for name, split in whole.items():
        step = max(1, len(split) // COUNTS[name])
        parts[name] = Split(split.x[::step][:COUNTS[name]], split.y[::step][:COUNTS[name]])
    return DataSplits(**parts, labels=whole.labels)
"""


@pytest.fixture
def short(tmp_path, monkeypatch):
    """Writes a copy of an example's recipe that reads a slice of its data; returns its path."""
    (tmp_path / "old.json").write_text("{}")
    monkeypatch.setenv("STROP_OLD_RUNTIMES", str(tmp_path / "old.json"))

    def write(name, train=256, **numbers):
        (tmp_path / f"few_{name}.py").write_text(FEW.format(name=name, train=train))
        text = (EXAMPLES / name / f"{name}.toml").read_text()
        text = text.partition("# What must hold before a bundle is made")[0]  # a network of one epoch would not
        text = text.replace(f"examples.{name}.data", f"few_{name}").replace("../../", f"{EXAMPLES.parent}/")
        for key, value in numbers.items():
            text, changed = re.subn(rf"(?m)^({key} *)= .*$", rf"\1= {value}", text)
            assert changed, key
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return path

    return write


def bundle_of(path):
    """Run a recipe, and return its report and its bundle's parity table."""
    folder = path.parent
    made = pipeline.run(recipe.load(path), folder / "work")
    made.save(folder / "out")
    built = material.bundle(folder / "out", folder / "bundle", version="1.0.0")
    assert {artefact.target for artefact in built.manifest.artefacts} == {"generic-x86", "rpi4"}
    assert built.manifest.lineage["recipe"] == made.report.recipe_digest
    return made.report, json.loads((folder / "bundle" / "parity.json").read_bytes())


@needs_watch
def test_watch_from_recipe_to_bundle(short):
    path = short("watch", epochs=1)
    report, parity = bundle_of(path)
    assert [step.kind for step in report.steps] == ["enter", "train", "prune", "quantize"]
    assert report.steps[2].cost.macs <= 0.5 * report.steps[1].cost.macs
    planned = dry_run.dry_run(recipe.load(path))
    assert planned[1].macs == report.steps[1].cost.macs
    assert planned[-1].size_kb == pytest.approx(report.steps[-1].size_kb, rel=0.2)  # other widths, the same MACs
    exact = next(pair for pair in parity["pairs"] if {pair["first"], pair["second"]} == {"litert", "onnxruntime"})
    assert exact["differing"] == 0


@needs_fashion
def test_fashion_from_recipe_to_bundle(short):
    path = short("fashion", train=128, stages=1, epochs=1, max_drop=90.0)
    report, parity = bundle_of(path)
    assert report.budget[0].is_kept
    assert report.steps[1].cost.macs <= recipe.load(path).steps[0].target["macs"] * report.steps[0].cost.macs
    assert parity["inputs"] == 128


@needs_lite0
def test_lite0_is_planned():
    entering, quantized = dry_run.dry_run(recipe.load(EXAMPLES / "lite0" / "lite0.toml"))
    assert entering.macs == 385_187_552  # 385 M are published; its convolutions hold their padding as a layer
    assert (entering.parameters, entering.size_kb) == (4_652_008, pytest.approx(18_524, abs=1))
    assert quantized.size_kb < 5000


@pytest.mark.parametrize("package", [True, False])
def test_recipe_finds_its_modules_from_any_folder(tmp_path, monkeypatch, package):
    """As ``examples/`` do: the recipe names its modules from the folder above, wherever it is run."""
    place = tmp_path / "above" / f"strop_found_{package}" / "inner"
    place.mkdir(parents=True)
    (place / "data.py").write_text("def load():\n    return 7\n")
    if package:
        (place / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    words = {"where": "x.toml [data]", "key": "source"}
    found = sources.resolve(f"strop_found_{package}.inner.data:load", folder=place, **words)
    assert found() == 7
    with pytest.raises(RecipeError, match="no module 'strop_found_nowhere'"):
        sources.resolve("strop_found_nowhere.inner.data:load", folder=place, **words)


def test_the_story_s_model_is_what_its_words_say():
    from examples.fashion.model import network

    assert sum(one.numel() for one in network().parameters()) == 70_666  # "71 k" in its docstring
    assert tuple(network().eval()(torch.zeros(1, 1, 28, 28)).shape) == (1, 10)
    assert np.isfinite(network()(torch.ones(2, 1, 28, 28)).detach().numpy()).all()
