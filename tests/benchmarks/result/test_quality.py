# SPDX-License-Identifier: Apache-2.0
"""Accuracy of the very bytes: counted on labels in the same runtime, or the bundle's word where answers agree."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.plan import plan_for
from benchmarks.quality import quality_of, wilson
from edge_agent.runner.model import Model
from edge_contract import canonical
from edge_contract.errors import DataError
from tests.edge_agent.runner import bundles, tiny

RUNTIMES = ("litert", "onnxruntime")


@pytest.fixture(scope="module")
def samples(bundle, tmp_path_factory):
    """40 images whose labels are the model's own answers, every fourth one turned wrong."""
    images = tiny.images(40, seed=3)
    model = Model.open(bundle, runtime="litert")
    labels = np.array([model.infer(one).cls for one in images])
    labels[::4] = (labels[::4] + 1) % 4
    path = tmp_path_factory.mktemp("samples") / "test.npz"
    np.savez(path, x=images, y=labels)
    return path


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_labels_are_counted_in_the_runtime_of_the_timing(bundle, samples, runtime):
    plan = plan_for(bundle, runtime=runtime)
    found = quality_of(plan, samples)
    assert (found.metric, found.value, found.n, found.source) == ("top1", 0.75, 40, "samples")
    assert found.ci95 == wilson(30, 40)
    assert found.runtime_same_as_perf
    assert found.runtime.startswith(f"{runtime} ")
    assert (found.sha256, found.data) == (plan.sha256, canonical.digest(samples.read_bytes()))


def test_a_bare_file_answers_what_it_takes(bundle, samples, tmp_path):
    plan = plan_for(bundle, runtime="litert")
    model = Model.open(bundle, runtime="litert")
    with np.load(samples) as arrays:
        prepared = np.concatenate([model.encoded(one).copy() for one in arrays["x"]])
        np.savez(tmp_path / "ready.npz", x=prepared, y=arrays["y"])
    bare = replace(plan, bundle="", bundle_digest="")
    if len(model.artefact.outputs) == 1:
        assert quality_of(bare, tmp_path / "ready.npz").value == 0.75
    else:
        with pytest.raises(DataError, match=r"the file has 2 outputs; give its bundle"):
            quality_of(bare, tmp_path / "ready.npz")
    with pytest.raises(DataError, match="the file takes int8"):
        quality_of(bare, samples)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_bundle_s_word_counts_where_its_golden_answers_come_out(tmp_path, runtime):
    folder = said(tmp_path / "b", {"samples": 200, "accuracy": 0.9, "low": 0.85, "high": 0.94})
    found = quality_of(plan_for(folder, runtime=runtime), None)
    assert (found.metric, found.value, found.n, found.ci95) == ("top1", 0.9, 200, (0.85, 0.94))
    assert (found.source, found.runtime_same_as_perf, found.more["golden"]) == ("bundle", True, "exact")


def test_the_validation_split_is_named_where_no_test_split_was_read(tmp_path):
    folder = said(tmp_path / "b", None, validation={"samples": 50, "accuracy": 0.8, "low": 0.7, "high": 0.9})
    assert quality_of(plan_for(folder), None).metric == "top1 of validation"


def test_golden_answers_that_do_not_come_out_are_worth_no_word(tmp_path):
    folder = said(tmp_path / "b", {"samples": 200, "accuracy": 0.9, "low": 0.85, "high": 0.94}, spoil=True)
    assert quality_of(plan_for(folder), None) is None


@pytest.mark.parametrize("accuracy", [None, {"samples": 0}, {"samples": 5, "accuracy": "much"}])
def test_a_bundle_that_says_nothing_of_use_is_not_quoted(tmp_path, accuracy):
    assert quality_of(plan_for(said(tmp_path / "b", accuracy)), None) is None


def test_inputs_without_labels_are_for_timing_only(bundle, tmp_path):
    np.savez(tmp_path / "x.npz", x=tiny.images(4, seed=1))
    np.save(tmp_path / "x.npy", tiny.images(4, seed=1))
    assert quality_of(plan_for(bundle), tmp_path / "x.npz") is None
    assert quality_of(plan_for(bundle), tmp_path / "x.npy") is None


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_bytes(b"no zip"), "no readable arrays"),
        (lambda path: np.savez(path, x=np.zeros((3, 8, 8), np.uint8), y=np.zeros(2)), "3 inputs x and 2 labels y"),
        (lambda path: np.savez(path, x=np.zeros((0, 8, 8), np.uint8), y=np.zeros(0)), "0 inputs x and 0 labels y"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(bundle, tmp_path, write, words):
    write(tmp_path / "bad.npz")
    with pytest.raises(DataError, match=words):
        quality_of(plan_for(bundle), tmp_path / "bad.npz")


def said(folder, accuracy, *, validation=None, spoil=False):
    """Build a bundle whose lineage says how good it is."""
    bundles.build(folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["lineage"] = {"metric": "top1", "shipped": "int8", "accuracy": {"int8": accuracy} if accuracy else {}}
    if validation:
        manifest["lineage"]["validation"] = validation
    if spoil:
        path = folder / json.loads((folder / manifest["golden"]).read_bytes())["reference"]
        path.chmod(0o644)
        np.save(path, np.load(path)[::-1] + 50)
        golden = folder / manifest["golden"]
        document = json.loads(golden.read_bytes())
        golden.write_bytes(canonical.dumps({**document, "entries": []}))
        for one in manifest["files"]:
            data = (folder / one["path"]).read_bytes()
            one.update(size=len(data), sha256=canonical.digest(data))
    (folder / "manifest.json").write_bytes(canonical.dumps(manifest))
    return folder
