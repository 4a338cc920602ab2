# SPDX-License-Identifier: Apache-2.0
"""A bundle is whole, reproducible, proved in its runtimes, and any change in it is named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.runner import golden
from edge_agent.runner.model import Model
from edge_contract import canonical
from edge_contract.errors import (
    BudgetError,
    BundleError,
    DataError,
    ManifestError,
    MissingDependencyError,
    ModelError,
    ParityError,
    TargetError,
    UnsupportedOperatorError,
    UsageError,
)
from edge_contract.manifest import MANIFEST_NAME
from edge_contract.profile import ReferenceProfile
from export.bundle import builder
from export.bundle.builder import Samples
from export.runtimes import execution

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(bundle_folder, tmp_path):
    return shutil.copytree(bundle_folder, tmp_path / "copy")


def test_bundle_has_everything_that_a_device_needs(bundle_folder, compressed):
    manifest = builder.verify(bundle_folder)
    assert [entry.path for entry in manifest.files] == [
        "golden/inputs.npy", "golden/logits.npy", "golden.json", "model.onnx", "model.tflite", "parity.json",
        "profiles/model.onnx.json", "profiles/model.tflite.json",
    ]  # fmt: skip
    assert (manifest.model, manifest.version, manifest.labels) == ("bars", "1.0.0", ("row", "column", "slope"))
    assert manifest.preprocess == compressed.preprocess
    claimed = {artefact.path: (artefact.target, artefact.runtimes) for artefact in manifest.artefacts}
    assert claimed["model.onnx"] == ("generic-x86", ("onnxruntime",))
    assert claimed["model.tflite"] == ("rpi4", ("litert", "tflite-runtime"))
    assert {artefact.plan_digest for artefact in manifest.artefacts} == {compressed.plan.digest}


def test_lineage_tells_where_it_came_from(bundle_folder, compressed):
    lineage = builder.verify(bundle_folder).lineage
    assert lineage["plan"] == compressed.plan.digest
    assert lineage["recipe"] == compressed.report.recipe_digest
    assert lineage["data"] == compressed.report.data_digest
    assert lineage["shipped"] == (compressed.report.test[-1].name if compressed.report.test else "")
    assert len(lineage["code"]) == 64
    assert lineage["calibration_samples"] == 96
    assert lineage["validation"]["samples"] == 180
    accuracy = [canonical.as_float(lineage["validation"][key]) for key in ("low", "accuracy", "high")]
    assert accuracy == sorted(accuracy)
    assert accuracy[1] > 0.85


def test_same_inputs_give_the_same_bundle_id(bundle_folder, compressed, samples, tmp_path):
    again = builder.build(compressed, tmp_path / "elsewhere", version="1.0.0", samples=samples)
    assert again.manifest.bundle_id == builder.verify(bundle_folder).bundle_id
    other = builder.build(compressed, tmp_path / "other", version="1.0.1", samples=samples)
    assert other.manifest.bundle_id != again.manifest.bundle_id
    # Unchanged files keep their hash, so that a device fetches nothing but the manifest.
    assert other.manifest.files == again.manifest.files


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_device_code_opens_it_and_its_golden_integers_match_exactly(bundle_folder, runtime):
    result = golden.check(Model.open(bundle_folder, runtime=runtime))
    assert (result.is_ok, result.how) == (True, "exact")


def test_old_runtime_passes_the_golden_test_in_its_own_interpreter(bundle_folder):
    # Its kernels round otherwise on ARM, so no hash of this machine is recorded for it: steps decide.
    document = json.loads((bundle_folder / "golden.json").read_bytes())
    assert [entry["runtime"] for entry in document["entries"]] == ["onnxruntime", "litert"]
    manifest = builder.verify(bundle_folder)
    inputs = (np.load(bundle_folder / "golden/inputs.npy")[..., None] / np.float32(255)).astype(np.float32)
    python = execution.python_for("tflite-runtime")
    artefact = manifest.artefact_for("tflite-runtime")
    found = execution.run(bundle_folder / artefact.path, artefact, "tflite-runtime", inputs, python)
    steps = np.abs(found.codes["logits"] - np.load(bundle_folder / "golden/logits.npy"))
    assert steps.max() <= document["max_steps"] <= 4


def test_golden_inputs_show_every_class(bundle_folder, samples):
    chosen = np.load(bundle_folder / "golden/inputs.npy")
    rows = [int(np.flatnonzero((samples.raw == one).all(axis=(1, 2)))[0]) for one in chosen]
    assert len(rows) == 24
    assert set(samples.labels[rows]) == {0, 1, 2}


def test_profile_is_of_this_artefact_on_its_runtime(bundle_folder):
    manifest = builder.verify(bundle_folder)
    for artefact in manifest.artefacts:
        profile = ReferenceProfile.from_bytes((bundle_folder / manifest.profiles[artefact.path]).read_bytes())
        assert profile.artefact == manifest.file(artefact.path).sha256
        assert profile.runtime == artefact.runtimes[0]
        assert profile.labels == manifest.labels


def test_parity_table_rides_along(bundle_folder):
    table = json.loads((bundle_folder / "parity.json").read_bytes())
    pair = next(p for p in table["pairs"] if (p["first"], p["second"]) == ("onnxruntime", "litert"))
    assert (pair["differing"], pair["values"]) == (0, 180 * 27)


# --- corruption ---


@pytest.mark.parametrize(
    "name", ["model.onnx", "model.tflite", "golden.json", "golden/logits.npy", "profiles/model.tflite.json"]
)
def test_flipped_byte_is_named_by_its_file(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name}: file changed"):
        builder.verify(copy)


def test_missing_file_is_named(copy):
    (copy / "golden/inputs.npy").unlink()
    with pytest.raises(BundleError, match=r"golden/inputs\.npy: file cannot be read \(No such file"):
        builder.verify(copy)


def test_stray_file_is_named(copy):
    (copy / "golden/extra.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"golden/extra\.bin: is not in the manifest; remove it"):
        builder.verify(copy)


def test_edited_manifest_is_refused(copy):
    text = (copy / MANIFEST_NAME).read_text()
    (copy / MANIFEST_NAME).write_text(text.replace('"version":"1.0.0"', '"version": "9.9.9"'))
    with pytest.raises(ManifestError, match="not canonical"):
        builder.verify(copy)


def test_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"no readable manifest\.json"):
        builder.verify(tmp_path)


# --- refused before anything is written ---


def build(compressed, samples, out, **options):
    return builder.build(compressed, out, version="1.0.0", samples=samples, **options)


def test_existing_folder_is_left_alone_unless_overwritten(compressed, samples, copy):
    before = builder.verify(copy).bundle_id
    with pytest.raises(BundleError, match=r"copy: is there already; choose another folder, or give --overwrite"):
        build(compressed, samples, copy)
    (copy / "stray").write_bytes(b"")
    assert build(compressed, samples, copy, overwrite=True).manifest.bundle_id == before
    assert not (copy / "stray").exists()


def test_model_without_plan_is_refused(compressed, samples, tmp_path):
    with pytest.raises(ModelError, match='bars: no quantization plan; add a step of kind "quantize"'):
        build(replace(compressed, plan=None), samples, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [0, 100])
def test_too_few_samples_leave_nothing_behind(compressed, samples, tmp_path, count):
    with pytest.raises(DataError, match="128 labelled"):
        build(compressed, Samples(samples.raw[:count], samples.labels[:count]), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_runtimes_that_disagree_leave_nothing_behind(compressed, samples, tmp_path, monkeypatch):
    """A writer that changes one weight is caught by the comparison, not by the user."""
    from export.tflite import writer

    genuine = writer.write

    def careless(plan, path, **options):
        name = plan.operations[-1].weight
        codes = plan.constants[name].codes.copy()
        codes[0, :4] ^= 8
        changed = replace(plan, constants={**plan.constants, name: replace(plan.constants[name], codes=codes)})
        return genuine(changed, path, **options)

    monkeypatch.setattr(writer, "write", careless)
    with pytest.raises(ParityError, match=r"onnxruntime and litert: \d+ of 540 integers of 'logits' differ"):
        build(compressed, samples, tmp_path / "out")
    assert not list(tmp_path.iterdir())


# --- several targets ---

TARGETS = ("rpi4", "coral-usb", "generic-x86", "rpi4:onnx")


@pytest.fixture(scope="module")
def several(compressed, samples, tmp_path_factory):
    """A bundle with one artefact for each of four targets."""
    folder = tmp_path_factory.mktemp("several") / "out"
    return folder, build(compressed, samples, folder, targets=TARGETS)


def test_each_target_has_an_artefact_and_equal_bytes_are_stored_once(several):
    folder, _ = several
    manifest = builder.verify(folder)
    assert [(a.target, a.path, a.runtimes) for a in manifest.artefacts] == [
        ("rpi4", "model.tflite", ("litert", "tflite-runtime")),
        ("coral-usb", "model.tflite", ("tflite-runtime",)),  # LiteRT is no runtime of that target
        ("generic-x86", "model-generic-x86.onnx", ("onnxruntime",)),
        ("rpi4", "model-rpi4.onnx", ("onnxruntime",)),
    ]
    assert [a.input.dtype for a in manifest.artefacts] == ["int8", "int8", "uint8", "int8"]
    files = [entry.path for entry in manifest.files if entry.path.startswith("model")]
    assert files == ["model-generic-x86.onnx", "model-rpi4.onnx", "model.tflite"]


def test_each_file_has_profile_golden_entries_and_parity(several):
    folder, built = several
    manifest = builder.verify(folder)
    golden_of = {entry["artefact"]: entry for entry in json.loads((folder / "golden.json").read_bytes())["entries"]}
    for path in ("model.tflite", "model-generic-x86.onnx", "model-rpi4.onnx"):
        profile = ReferenceProfile.from_bytes((folder / manifest.profiles[path]).read_bytes())
        assert profile.artefact == manifest.file(path).sha256
        assert manifest.file(path).sha256 in golden_of
    assert len({entry["sha256"] for entry in golden_of.values()}) == 1  # the same integers in every file
    assert built.parity.pair("onnxruntime generic-x86", "onnxruntime rpi4").differing == 0
    assert built.parity.pair("litert", "onnxruntime rpi4").differing == 0


def test_the_device_gets_its_own_target_s_file(several):
    folder, _ = several
    for target, path in (("rpi4", "model-rpi4.onnx"), ("generic-x86", "model-generic-x86.onnx")):
        model = Model.open(folder, runtime="onnxruntime", target=target)
        assert model.artefact.path == path
        assert golden.check(model).how == "exact"


def test_profile_of_a_runtime_that_lives_elsewhere_is_computed_there(compressed, samples, tmp_path):
    manifest = build(compressed, samples, tmp_path / "out", targets=("coral-usb",)).manifest
    profile = ReferenceProfile.from_bytes((tmp_path / "out/profiles/model.tflite.json").read_bytes())
    assert (profile.runtime, profile.artefact) == ("tflite-runtime", manifest.file("model.tflite").sha256)
    assert sum(profile.counters.classes) == 180


def test_parity_says_how_near_the_files_are_to_the_float_model(bundle_folder):
    table = json.loads((bundle_folder / "parity.json").read_bytes())
    rows = {row["runtime"]: row for row in table["fidelity"] if row["against"] == "float model"}
    assert {"onnxruntime", "litert", "tflite-runtime"} <= set(rows)
    assert all(0 < canonical.as_float(row["relative_error"]) < 0.3 for row in rows.values())
    assert {claim["runtime"] for claim in table["claims"]} == {"onnxruntime", "litert", "tflite-runtime"}


def own_target(tmp_path, **changes):
    """A target file like that of the Raspberry Pi 4, with some lines replaced."""
    text = (ROOT / "edge_contract/targets/rpi4.toml").read_text().replace('name = "rpi4"', 'name = "own"')
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "own.toml").write_text(text)
    return str(tmp_path / "own.toml")


REFUSED_TARGETS = {
    "too little memory": (
        {"ram": ("model_kib = 524288", "model_kib = 2")},
        BudgetError,
        "KiB, target 'own' has 2 KiB for a model",
    ),
    "an operator that it lacks": ({"mean": ("MEAN = 3\n", "")}, UnsupportedOperatorError, "MEAN version 2"),
    "an older version": ({"conv": ("\nCONV_2D = 5", "\nCONV_2D = 2")}, UnsupportedOperatorError, "CONV_2D version 3"),
}


@pytest.mark.parametrize("case", REFUSED_TARGETS)
def test_what_a_target_cannot_hold_is_refused_before_anything_is_written(compressed, samples, tmp_path, case):
    changes, error, words = REFUSED_TARGETS[case]
    target = own_target(tmp_path, **changes)
    with pytest.raises(error, match=f"model.tflite for own: .*{words}"):
        build(compressed, samples, tmp_path / "out", targets=("rpi4", target))
    assert [path.name for path in tmp_path.iterdir()] == ["own.toml"]


def test_a_target_file_of_one_s_own_is_taken(compressed, samples, tmp_path):
    made = build(compressed, samples, tmp_path / "out", targets=(own_target(tmp_path),))
    assert [(a.target, a.path) for a in made.manifest.artefacts] == [("own", "model.tflite")]


@pytest.mark.parametrize(
    ("targets", "error", "words"),
    [
        (("rpi4", "rpi4"), UsageError, "target 'rpi4' stands twice"),
        (("coral-usb:onnx",), UsageError, "target 'coral-usb' does not read onnx; write coral-usb:tflite"),
        (("rpi9",), TargetError, "unknown target 'rpi9'"),
    ],
)
def test_targets_that_make_no_sense_are_refused(compressed, samples, tmp_path, targets, error, words):
    with pytest.raises(error, match=words):
        build(compressed, samples, tmp_path / "out", targets=targets)
    assert not list(tmp_path.iterdir())


def test_a_target_none_of_whose_runtimes_is_here_is_refused(compressed, samples, tmp_path, monkeypatch):
    monkeypatch.setenv(execution.EXTERNAL_PYTHON, str(tmp_path / "nowhere"))
    with pytest.raises(MissingDependencyError, match=r"'coral-usb' runs tflite in edgetpu, tflite-runtime, and none"):
        build(compressed, samples, tmp_path / "out", targets=("coral-usb",))
