# SPDX-License-Identifier: Apache-2.0
"""Real bundle folders around the tiny classifier: manifest, two artefacts, golden files, perhaps a profile."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.runner import golden
from edge_agent.runner.model import Description, Model
from edge_contract import canonical
from edge_contract.manifest import MANIFEST_NAME, Artefact, BundleFile, Manifest
from edge_contract.preprocess import Preprocess
from export.bundle.reference import build_profile
from tests.edge_agent.runner import tiny

PREPROCESS = Preprocess(scale=1 / 255)
LABELS = ("north", "east", "south", "west")
RUNTIME_OF = {"model.tflite": "litert", "model.onnx": "onnxruntime"}


def build(folder: Path, *, seed: int = 2, version: str = "1.0.0", profile: bool = False, exact: bool = True) -> Path:
    """Write a bundle and return its folder; without ``exact`` no hash is recorded."""
    net = tiny.make(seed)
    (folder / "golden").mkdir(parents=True)
    artefacts = [tiny.write_tflite(net, folder / "model.tflite"), tiny.write_onnx(net, folder / "model.onnx")]
    models = [open_file(folder, artefact) for artefact in artefacts]
    raw = tiny.images(12, seed=9)
    np.save(folder / "golden/inputs.npy", raw)
    np.save(folder / "golden/logits.npy", np.array([tiny.reference(net, one)[0] for one in raw], np.int16))
    entries = [golden.record(model, raw) for model in models] if exact else []
    write_golden(folder, entries)
    profiles = _profiles(folder, models) if profile else {}
    return seal(folder, artefacts, version=version, profiles=profiles)


def open_file(folder: Path, artefact: Artefact) -> Model:
    description = Description(artefact, PREPROCESS, "softmax", LABELS)
    return Model.load(folder / artefact.path, description, runtime=RUNTIME_OF[artefact.path])


def _profiles(folder: Path, models: list[Model]) -> dict[str, str]:
    raw, paths = tiny.images(200, seed=4), {}
    for model in models:
        truth = np.array([model.infer(one).cls for one in raw])
        name = f"{model.artefact.path}.profile.json"
        (folder / name).write_bytes(build_profile(model, raw, truth, names=LABELS).to_bytes())
        paths[model.artefact.path] = name
    return paths


def write_golden(folder: Path, entries: list[dict[str, str]], **changes: Any) -> None:
    words = {"inputs": "golden/inputs.npy", "reference": "golden/logits.npy", "max_steps": 2, "entries": entries}
    (folder / "golden/golden.json").write_text(json.dumps({**words, **changes}))


def build_logarithm(folder: Path, first: int = 0) -> Path:
    """Write the bundle of a float model that gives no number where a pixel is black; its golden input has none."""
    (folder / "golden").mkdir(parents=True)
    artefact = tiny.write_logarithm(folder / "log.onnx", first)
    np.save(folder / "golden/inputs.npy", np.full((1, 2, 2), 3, np.uint8))
    np.save(folder / "golden/logits.npy", np.log(np.full((1, 2), 3 / 255, np.float32)))
    write_golden(folder, [], tolerance=1e-5)
    return seal(folder, [artefact], version=f"log-{first}", labels=("left", "right"))


def seal(
    folder: Path,
    artefacts: list[Artefact],
    *,
    version: str,
    profiles: dict[str, str] | None = None,
    labels: tuple[str, ...] = LABELS,
    **changes: Any,
) -> Path:
    """Write the manifest over whatever lies in the folder."""
    manifest = Manifest(
        model="compass",
        version=version,
        task="classification",
        preprocess=PREPROCESS,
        postprocess="softmax",
        labels=labels,
        artefacts=tuple(artefacts),
        golden="golden/golden.json",
        profiles=profiles or {},
        lineage={},
        files=files(folder),
    )
    manifest = replace(manifest, **changes)
    (folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    return folder


def files(folder: Path) -> tuple[BundleFile, ...]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_NAME)
    return tuple(
        BundleFile(p.relative_to(folder).as_posix(), p.stat().st_size, canonical.digest(p.read_bytes())) for p in found
    )


def manifest_of(folder: Path) -> Manifest:
    return Manifest.from_bytes((folder / MANIFEST_NAME).read_bytes())


def reseal(folder: Path) -> Path:
    """Write the manifest again after a test changed files: a bundle that is consistent, and wrong."""
    old = manifest_of(folder)
    return seal(folder, list(old.artefacts), version=old.version, profiles=dict(old.profiles), labels=old.labels)
