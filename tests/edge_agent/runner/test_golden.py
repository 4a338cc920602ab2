# SPDX-License-Identifier: Apache-2.0
"""The self-test: what it lets through, and what it stops."""

import json

import numpy as np
import pytest

from edge_agent.runner import golden
from edge_agent.runner.model import Model
from edge_contract.errors import BundleError
from tests.edge_agent.runner import bundles, tiny

GOLDEN = "golden/golden.json"


@pytest.fixture(params=["litert", "onnxruntime"])
def runtime(request):
    return request.param


def check(folder, runtime):
    return golden.check(Model.open(folder, runtime=runtime))


def change(folder, **words):
    path = folder / GOLDEN
    path.write_text(json.dumps({**json.loads(path.read_text()), **words}))
    return bundles.reseal(folder)


def entries(folder):
    return json.loads((folder / GOLDEN).read_text())["entries"]


def test_recorded_place_is_compared_to_the_bit(built, runtime):
    assert check(built, runtime) == golden.GoldenResult(True, "exact", "the recorded integers")


def test_one_bit_of_another_hash_fails(bundle, runtime):
    spoiled = [{**entry, "sha256": "0" * 64} for entry in entries(bundle)]
    found = check(change(bundle, entries=spoiled), runtime)
    assert (found.is_ok, found.how) == (False, "exact")
    assert found.detail.startswith("other integers than recorded, up to ")


@pytest.mark.parametrize("key", ["version", "delegate", "runtime"])
def test_another_place_is_compared_with_the_plan(bundle, runtime, key):
    elsewhere = [{**entry, key: "other", "sha256": "0" * 64} for entry in entries(bundle)]
    found = check(change(bundle, entries=elsewhere), runtime)
    assert (found.is_ok, found.how) == (True, "steps")


def test_too_many_steps_off_the_plan_fail(bundle, runtime):
    path = bundle / "golden/logits.npy"
    np.save(path, np.load(path) + np.int16(4))
    found = check(change(bundle, entries=[]), runtime)
    assert (found.is_ok, found.how) == (False, "steps")
    assert found.detail in ("up to 4 steps off the plan, 2 allowed", "up to 5 steps off the plan, 2 allowed")


def test_weights_of_another_training_fail(bundle, runtime):
    other = tiny.make(3)
    for name, write in (("model.tflite", tiny.write_tflite), ("model.onnx", tiny.write_onnx)):
        write(other, bundle / name)
    found = check(bundles.reseal(bundle), runtime)  # the hashes fit: only the answers tell
    assert (found.is_ok, found.how) == (False, "steps")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"inputs": "golden/none.npy"}, "no file 'golden/none.npy'"),
        ({"inputs": GOLDEN}, "not an .npy array"),
        ({"reference": "golden/inputs.npy"}, r"12 inputs, reference of shape \[12, 8, 8\], 4 classes"),
        ({"max_steps": None}, "max_steps: expected an integer, found None"),
        ({"entries": [{"artefact": 3}], "max_steps": 2}, "artefact: expected text, found 3"),
    ],
)
def test_golden_file_that_makes_no_sense_is_refused(bundle, words, message):
    spoiled = {"entries": [], **words}
    with pytest.raises(BundleError, match=message):
        check(change(bundle, **spoiled), "litert")


def test_golden_inputs_that_rot_are_refused(bundle):
    path = bundle / "golden/inputs.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(BundleError, match=r"inputs.npy: file changed"):
        check(bundle, "litert")


def test_no_pickle_is_ever_opened(bundle):
    np.save(bundle / "golden/inputs.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BundleError, match=r"not an .npy array"):
        check(bundles.reseal(bundle), "litert")


def test_entry_of_the_same_integers_is_the_same_in_every_runtime(built):
    raw = tiny.images(1, seed=9)  # no tie among these: both runtimes round alike
    one, two = (golden.record(Model.open(built, runtime=name), raw) for name in ("litert", "onnxruntime"))
    assert one["sha256"] == two["sha256"]
    assert one["artefact"] != two["artefact"]


def test_model_outside_a_bundle_has_nothing_to_be_compared_with(built):
    artefact = bundles.manifest_of(built).artefact_for("litert")
    with pytest.raises(BundleError, match="has no golden outputs"):
        golden.check(bundles.open_file(built, artefact))
