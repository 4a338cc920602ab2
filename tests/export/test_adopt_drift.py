# SPDX-License-Identifier: Apache-2.0
"""Adopted files are watched for drift: by features that are shown, and in tasks without labels."""

import base64
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper

from edge_agent.core.events import Instant, Sample
from edge_agent.core.settings import Settings
from edge_agent.core.telemetry import Windows, observe
from edge_agent.counters import CounterFile
from edge_agent.runner.commands import Load, UseSource
from edge_agent.runner.model import Model
from edge_contract.profile import ReferenceProfile
from edge_contract.summary import decode
from export.adopt.adoption import Wish, adopt
from export.adopt.inputs import Given
from export.adopt.shown import with_embedding
from tests.edge_agent.runner.bench import Bench
from tests.export.test_adopt import PIXELS, linear, net, wish


def deep(path, *, softmax=True):
    """A net of two layers whose features are hidden."""
    random = np.random.default_rng(0)
    weights = [("w", random.normal(0, 0.3, (256, 20))), ("v", random.normal(0, 0.5, (20, 3)))]
    nodes = [
        helper.make_node("MatMul", ["f", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["z" if softmax else "y"]),
        *([helper.make_node("Softmax", ["z"], ["y"])] if softmax else []),
    ]
    return net(path, *nodes, constants=weights)


def profile_of(folder, manifest, path):
    return ReferenceProfile.from_bytes((folder / manifest.profiles[path]).read_bytes())


def test_a_hidden_embedding_is_shown_and_the_answers_stay_as_they_were(tmp_path, samples):
    given = Given.of(samples.raw, samples.labels, "samples.npz")
    path = deep(tmp_path / "net.onnx")
    plain = adopt([path], tmp_path / "plain", wish(), given).manifest
    shown = adopt([path], tmp_path / "shown", wish(embedding=True), given).manifest
    before, after = (profile_of(tmp_path / n, m, "model.onnx") for n, m in (("plain", plain), ("shown", shown)))
    assert (before.projection.source, before.projection.dimension) == ("logits", 3)
    assert (after.projection.source, after.projection.dimension) == ("embedding", 20)
    assert before.scores == after.scores == "shares", "the file ends in a softmax"
    assert after.counters.cells == before.counters.cells
    answers = [Model.open(tmp_path / n, runtime="onnxruntime").infer(samples.raw[0]) for n in ("plain", "shown")]
    assert (answers[0].logits == answers[1].logits).all()
    assert (answers[0].embedding, answers[1].embedding.shape) == (None, (20,))
    assert shown.lineage["adopted"] == plain.lineage["adopted"], "the lineage names the file as it was given"


def test_an_int8_file_of_either_format_shows_its_codes(bundle_folder, tmp_path, samples):
    """Ours show their embedding already; without it they are as another maker would have written them."""
    for name, cut in (("model.onnx", _without_onnx), ("model.tflite", _without_tflite)):
        hidden = tmp_path / name
        hidden.write_bytes(cut((bundle_folder / name).read_bytes()))
        assert with_embedding(hidden, tmp_path / f"shown-{name}")
        assert not with_embedding(tmp_path / f"shown-{name}", tmp_path / "again"), "it is shown already"
    given = Given.of(samples.raw, samples.labels, "samples.npz")
    files = [tmp_path / "model.onnx", tmp_path / "model.tflite"]
    manifest = adopt(files, tmp_path / "out", wish(embedding=True), given).manifest
    for artefact in manifest.artefacts:
        spec = artefact.output("embedding")
        assert spec.dtype in ("int8", "uint8")
        assert spec.scale > 0
        assert profile_of(tmp_path / "out", manifest, artefact.path).projection.source == "embedding"


def _without_onnx(data):
    model = onnx.load_model_from_string(data)
    kept = [o for o in model.graph.output if o.name != "embedding"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    for node in model.graph.node:
        node.input[:] = ["hidden" if n == "embedding" else n for n in node.input]
        node.output[:] = ["hidden" if n == "embedding" else n for n in node.output]
    return model.SerializeToString()


def _without_tflite(data):
    from export.tflite.encoder import encode
    from export.tflite.walk import decode as decode_file

    root, _ = decode_file(data, "test")
    graph = root["subgraphs"][0]
    names = [tensor["name"] for tensor in graph["tensors"]]
    at = names.index(b"embedding")
    graph["outputs"] = tuple(o for o in graph["outputs"] if o != at)
    graph["tensors"][at]["name"] = b"hidden"
    root["signature_defs"] = None
    return encode(root)


def test_a_file_of_one_layer_has_no_features(tmp_path):
    assert not with_embedding(linear(tmp_path / "net.onnx"), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("task", ["regression", "anomaly"])
def test_a_task_without_labels_is_watched_from_file_to_alarm(tmp_path, samples, task):
    """Adopted, loaded by the runner, counted, read by the control process, judged, and told in its own words."""
    given = Given.of(samples.raw, None, "samples.npz")
    path = deep(tmp_path / "net.onnx", softmax=False)
    asked = Wish("bars", "1.0.0", task, PIXELS)
    manifest = adopt([path], tmp_path / "out", asked, given).manifest
    profile = profile_of(tmp_path / "out", manifest, "model.onnx")
    assert profile.task == {"regression": "regress", "anomaly": "anomaly"}[task]
    assert profile.size == min(len(samples.raw), 1024)
    rows = samples.raw[np.random.default_rng(1).integers(0, len(samples.raw), 400)]
    np.save(tmp_path / "dark.npy", (rows * 0.3).astype(np.uint8))
    bench = Bench(tmp_path, "onnxruntime")
    source = UseSource("dark", {"kind": "replay", "path": str(tmp_path / "dark.npy"), "rate_hz": 1000})
    bench.tell(Load("active", tmp_path / "out"), source)
    bench.run(1.0)
    bench.engine.close()
    reading = CounterFile(bench.counters).read()
    assert (reading.counters.task, reading.counters.n_sampled) == (profile.task, 400)
    windows, notes = replace(Windows("pi", "boot"), profile=profile, bundle=reading.bundle), []
    for second, counters in enumerate((reading.counters.emptied(), reading.counters)):
        sample = Sample((reading.epoch, reading.bundle, counters))
        windows, effects = observe(windows, sample, Settings(window_inferences=200), Instant(1000.0 + second, second))
        notes += effects
    body = next(note.body for note in notes if note.cls == "drift")
    assert decode(base64.b64decode(body["summary"])).counters.task == profile.task
    assert body["verdict"]["level"] == "WARN"
    assert "images darker" in json.dumps(body["verdict"]["moved"])
    assert "estimated_accuracy" not in body["verdict"]
