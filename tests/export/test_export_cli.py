# SPDX-License-Identifier: Apache-2.0
"""``strop export`` from the outside: every verb, its JSON, and its refusals in one line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.bundle.builder import verify
from strop.cli import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def strop(capsys):
    """Run ``strop export`` as the shell does, in this process; return exit code, stdout, stderr."""

    def run(*words):
        with pytest.raises(SystemExit) as left:
            main(["export", *map(str, words)])
        said = capsys.readouterr()
        return left.value.code, said.out, said.err

    return run


@pytest.fixture
def ok(strop):
    def run(*words):
        code, out, err = strop(*words)
        assert code == 0, err
        return out

    return run


@pytest.fixture
def refused(strop):
    def run(*words, code=1):
        found, out, err = strop(*words)
        assert found == code, out + err
        lines = [line for line in err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1
        assert "Traceback" not in err
        return lines[0]

    return run


def test_command_line_starts_without_torch():
    code = "import sys, export.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_one_command_makes_a_signed_bundle(ok, compressed_folder, bundle_folder, tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "online.pub").write_bytes(Ed25519PrivateKey.generate().public_key().public_bytes(*form))
    ok("keys", "init", tmp_path / "keys", "--online", tmp_path / "online.pub")
    words = ("--version", "1.0.0", "--keys", tmp_path / "keys", "--out", tmp_path / "out", "--json")
    made = json.loads(ok("bundle", compressed_folder, *words))
    manifest = verify(tmp_path / "out")
    assert made["bundle"] == manifest.bundle_id == verify(bundle_folder).bundle_id
    assert made["signed"] is True
    assert {(p["first"], p["second"]): p["differing"] for p in made["parity"]["pairs"]}["onnxruntime", "litert"] == 0
    targets = json.loads((tmp_path / "keys" / "targets.json").read_text())["signed"]["targets"]
    assert f"blobs/{manifest.bundle_id}" in targets
    assert {f"blobs/{entry.sha256}" for entry in manifest.files} < set(targets)


def test_files_are_those_of_the_bundle(ok, compressed_folder, bundle_folder, tmp_path):
    for verb, name in (("onnx", "model.onnx"), ("tflite", "model.tflite")):
        said = json.loads(ok(verb, compressed_folder, "--out", tmp_path / name, "--json"))
        assert (tmp_path / name).read_bytes() == (bundle_folder / name).read_bytes()
        assert said["size"] == (bundle_folder / name).stat().st_size


def test_parity_prints_one_line_a_pair(ok, compressed_folder):
    lines = ok("parity", compressed_folder, "--limit", "60").splitlines()
    assert "onnxruntime / litert: 0 of 1620 integers differ, 0 steps at most, 100.00 % same class" in lines
    assert len(lines) == 6


def test_inspect_says_what_a_bundle_and_a_file_hold(ok, bundle_folder):
    said = json.loads(ok("inspect", bundle_folder, "--json"))
    assert said["bundle"] == verify(bundle_folder).bundle_id
    assert "every file is as the manifest says" in ok("inspect", bundle_folder)
    facts = json.loads(ok("inspect", bundle_folder / "model.tflite", "--json"))
    assert {"name": "FULLY_CONNECTED", "version": 4, "count": 1} in facts["operators"]
    assert "tensor logits: uint8 [0, 3]" in ok("inspect", bundle_folder / "model.onnx")


def test_inspect_tells_scales_weights_parity_and_float_operators(ok, bundle_folder):
    text = ok("inspect", bundle_folder / "model.tflite")
    assert "weights: " in text
    assert "per channel)" in text
    said = json.loads(ok("inspect", bundle_folder / "model.tflite", "--json"))
    assert said["float_operators"] == []
    assert said["weights"]["bytes"] > 1000
    assert {"dtype", "count", "smallest", "largest", "zero_points"} < said["scales"][0].keys()
    whole = json.loads(ok("inspect", bundle_folder, "--json"))
    assert whole["parity"]["litert / onnxruntime"]["differing"] == 0
    assert whole["parity"]["litert / float model: logits"]["relative_error"] < 0.3
    assert whole["models"]["model.onnx"]["operators"]


def test_inspect_shows_twelve_rows_or_all(ok, bundle_folder):
    short, long = (ok("inspect", bundle_folder / "model.onnx", *words) for words in ((), ("--all",)))
    assert "more: --all" in short
    assert "more: --all" not in long
    assert len(long.splitlines()) > len(short.splitlines())


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x00\x00\x00\x00TFL3", b"\x3a\xff\xff\xff\xff\x0f"], ids=repr)
def test_inspect_refuses_what_is_no_model_in_one_line(refused, tmp_path, data):
    (tmp_path / "x.onnx").write_bytes(data)
    assert "x.onnx" in refused("inspect", tmp_path / "x.onnx")


def test_diff_prints_tables_or_json(ok, refused, bundle_folder, tmp_path):
    assert "all files are equal" in ok("diff", bundle_folder, bundle_folder)
    models = (bundle_folder / "model.onnx", bundle_folder / "model.tflite")
    assert "weights" in ok("diff", *models)
    assert json.loads(ok("diff", *models, "--json"))["operators"]
    assert "a folder and a file" in refused("diff", bundle_folder, models[0], code=2)


def test_bundle_takes_a_target_for_each_artefact(ok, compressed_folder, tmp_path):
    words = ("--target", "rpi4", "--target", "rpi4:onnx", "--version", "1", "--out", tmp_path / "out", "--json")
    made = json.loads(ok("bundle", compressed_folder, *words))
    assert [(a["target"], a["path"]) for a in made["artefacts"]] == [("rpi4", "model.tflite"), ("rpi4", "model.onnx")]


def test_adopt_makes_a_bundle_of_a_file(ok, refused, bundle_folder, samples, tmp_path):
    np.savez(tmp_path / "s.npz", x=samples.raw[:8])
    (tmp_path / "p.toml").write_text("[preprocess]\nscale = 0.00392156862745098\n")
    words = ("adopt", bundle_folder / "model.tflite", "--name", "bars", "--version", "1", "--out", tmp_path / "out")
    words += ("--preprocess", tmp_path / "p.toml", "--labels", "row,column,slope")
    assert "give either --inputs or --inputs-random" in refused(*words, code=2)
    text = ok(*words, "--inputs", tmp_path / "s.npz")
    assert "model.tflite: int8 for rpi4, ran in litert, tflite-runtime" in text
    assert "not signed: give --keys" in text
    assert verify(tmp_path / "out").model == "bars"
    assert "is there already" in refused(*words, "--inputs", tmp_path / "s.npz")
    made = json.loads(ok(*words, "--inputs-random", "--overwrite", "--json"))
    assert made["lineage"]["inputs"]["source"] == "random"


@pytest.mark.parametrize("verb", ["onnx", "tflite", "parity", "bundle", "adopt", "inspect", "diff", "keys"])
def test_every_verb_has_help(ok, verb):
    assert "Usage" in ok(verb, "--help")


def test_corrupted_bundle_is_one_line_with_the_file(refused, bundle_folder, tmp_path):
    folder = shutil.copytree(bundle_folder, tmp_path / "bad")
    (folder / "model.onnx").write_bytes(b"no")
    assert "model.onnx: file changed" in refused("inspect", folder)


def test_folder_that_is_no_compressed_model_is_one_line(refused, tmp_path):
    assert str(tmp_path) in refused("bundle", tmp_path, "--version", "1", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_keys_that_cannot_sign_are_refused_before_anything_is_made(refused, compressed_folder, tmp_path):
    words = ("--version", "1", "--keys", tmp_path / "nokeys", "--out", tmp_path / "out")
    assert "nokeys" in refused("bundle", compressed_folder, *words)
    assert not list(tmp_path.iterdir())


def test_format_that_the_target_does_not_read_is_refused(refused, compressed_folder, tmp_path):
    line = refused("onnx", compressed_folder, "--out", tmp_path / "x.onnx", "--target", "coral-usb")
    assert "target 'coral-usb' reads tflite" in line


def test_folder_that_is_not_there_is_one_line(refused, compressed_folder, tmp_path):
    assert "cannot be written" in refused("tflite", compressed_folder, "--out", tmp_path / "no" / "x.tflite")


def test_unknown_target_is_a_usage_error(refused, compressed_folder, tmp_path):
    line = refused("tflite", compressed_folder, "--out", tmp_path / "x", "--target", "rpi9", code=2)
    assert "rpi9" in line
    assert not (tmp_path / "x").exists()
