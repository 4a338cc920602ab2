# SPDX-License-Identifier: Apache-2.0
"""A corrupted bundle, or one signed by another key: refused on the workstation, by the server and on the device."""

import json
import shutil

import numpy as np
import pytest

from edge_contract import canonical
from edge_contract.manifest import MANIFEST_NAME
from export.keys import signing
from tests.bad_input.refusals import unchanged
from tests.edge_agent.runner import bundles, tiny


@pytest.fixture
def new_bundle(tmp_path, fleet):
    """A copy of the registered bundle under another version, with a model file that the server does not hold."""
    folder = tmp_path / "bundle-2"
    shutil.copytree(fleet.bundle, folder)
    (folder / "notes.txt").write_text("second")
    manifest = bundles.manifest_of(folder)
    profiles = dict(manifest.profiles)
    return bundles.seal(folder, list(manifest.artefacts), version="2.0.0", profiles=profiles, labels=manifest.labels)


@pytest.fixture
def keys(tmp_path, fleet):
    """A copy of the fleet's signing keys, so that signing here does not change what other tests see."""
    shutil.copytree(fleet.keys, tmp_path / "keys")
    return tmp_path / "keys"


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _edit_manifest(folder, **changes):
    path = folder / MANIFEST_NAME
    path.write_bytes(canonical.dumps({**json.loads(path.read_bytes()), **changes}))


DAMAGES = {
    "a flipped byte": (lambda b: _flip(b / "model.tflite"), "model.tflite", "digest"),
    "a removed file": (lambda b: (b / "golden/inputs.npy").unlink(), "golden/inputs.npy", "missing"),
    "an edited manifest": (lambda b: _edit_manifest(b, labels=["n", "e", "s", "o"]), "", "not"),
    "a manifest cut short": (lambda b: (b / MANIFEST_NAME).write_bytes(b'{"format":'), "manifest", ""),
    "no manifest": (lambda b: (b / MANIFEST_NAME).unlink(), MANIFEST_NAME, "read"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_model_add_refuses_a_damaged_bundle_and_sends_nothing(strop, fleet, new_bundle, keys, damage):
    signing.sign_bundle(keys, new_bundle)
    spoil, *parts = DAMAGES[damage]
    spoil(new_bundle)
    words = ("fleet", "model", "add", new_bundle, "--targets", keys / "targets.json", *fleet.words())
    with unchanged(fleet.state, new_bundle, keys):
        strop.refuses(2 if damage == "no manifest" else 1, *parts, words=words)


def test_inspect_names_what_is_damaged(strop, new_bundle):
    _flip(new_bundle / "model.tflite")
    with unchanged(new_bundle):
        strop.refuses(1, "model.tflite", words=("export", "inspect", new_bundle))


@pytest.mark.parametrize("damage", ["a flipped byte", "a removed file", "a manifest cut short"])
def test_a_damaged_bundle_does_not_predict_on_a_device(strop, new_bundle, tmp_path, damage):
    spoil, name, _ = DAMAGES[damage]
    if damage == "a removed file":
        (new_bundle / "model.tflite").unlink()
        name = "model.tflite"
    else:
        spoil(new_bundle)
    np.save(tmp_path / "x.npy", tiny.images(1, seed=1))
    with unchanged(new_bundle):
        strop.refuses(1, name, words=("agent", "predict", tmp_path / "x.npy", "--bundle", new_bundle))


def test_a_bundle_signed_by_another_key_is_refused_and_leaves_no_file_on_the_server(
    strop, fleet, foreign_fleet, new_bundle
):
    signing.sign_bundle(foreign_fleet / "keys", new_bundle)
    words = ("fleet", "model", "add", new_bundle, "--targets", foreign_fleet / "keys" / "targets.json", *fleet.words())
    with unchanged(fleet.state):
        strop.refuses(1, "targets.json: signed by nobody whom we trust; ", "this fleet's root.json", words=words)


def test_a_bundle_that_nobody_signed_is_refused_by_name(strop, fleet, new_bundle):
    words = ("fleet", "model", "add", new_bundle, "--targets", fleet.targets, *fleet.words())
    with unchanged(fleet.state):
        strop.refuses(1, "bundle compass 2.0.0", "not", "sign", words=words)


def test_another_bundle_under_a_version_that_is_taken_is_refused(strop, fleet, new_bundle, keys):
    manifest = bundles.manifest_of(new_bundle)
    bundles.seal(new_bundle, list(manifest.artefacts), version="1.0.0", labels=manifest.labels)
    signing.sign_bundle(keys, new_bundle)
    words = ("fleet", "model", "add", new_bundle, "--targets", keys / "targets.json", *fleet.words())
    with unchanged(fleet.state):
        strop.refuses(1, "version 1.0.0 is already bundle", "give the new one another version", words=words)


def test_targets_that_are_no_signed_document_are_refused(strop, fleet, new_bundle, tmp_path):
    (tmp_path / "targets.json").write_text("[]")
    words = ("fleet", "model", "add", new_bundle, "--targets", tmp_path / "targets.json", *fleet.words())
    with unchanged(fleet.state):
        strop.refuses(1, "targets.json: not TUF metadata; ", words=words)


def test_signing_with_keys_that_are_not_there_changes_nothing(strop, new_bundle, tmp_path):
    with unchanged(new_bundle, tmp_path):
        strop.refuses(1, str(tmp_path / "no-keys"), words=("export", "keys", "sign", tmp_path / "no-keys", new_bundle))


def test_a_root_of_another_server_is_not_installed(strop, fleet, foreign_fleet):
    with unchanged(fleet.state):
        words = ("fleet", "trust", foreign_fleet / "keys" / "root.json", *fleet.words())
        strop.refuses(1, "root.json: ", words=words)
