# SPDX-License-Identifier: Apache-2.0
"""The engine without pipes: real models, and a clock that the test turns."""

import json
import shutil

import numpy as np
import pytest

from edge_agent.counters import CounterFile
from edge_agent.runner.commands import Load, Pause, Resume, Stop, Unload, UseSource
from edge_agent.runner.engine import Engine, Settings
from edge_agent.runner.model import Model
from edge_contract.profile import ReferenceProfile
from tests.edge_agent.runner import bundles, tiny
from tests.edge_agent.runner.bench import Bench


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "belt.npy"
    np.save(path, tiny.images(30, seed=11))
    return lambda **words: UseSource("belt", {"kind": "replay", "path": str(path), "rate_hz": 20, **words})


def test_results_are_those_of_the_model_in_order_and_without_a_gap(bench, source, built):
    bench.tell(Load("active", built), source(loop=True))
    bench.run(10.0)
    model = Model.open(built, runtime="litert")
    answers = [model.infer(raw) for raw in tiny.images(30, seed=11)]
    bench.engine.flush()
    assert 200 <= len(bench.rows()) <= 201
    for n, (ref, cls, confidence) in enumerate(bench.rows()):
        assert ref == f"belt:{n % 30}"
        assert (cls, confidence) == (answers[n % 30].cls, round(answers[n % 30].confidence, 4))
    firsts = [event["first"] for event in bench.of("results")]
    sizes = [len(event["rows"]) for event in bench.of("results")]
    assert firsts == [sum(sizes[:i]) for i in range(len(sizes))]
    assert {event["bundle"] for event in bench.of("results")} == {model.bundle}


def test_results_leave_after_a_second_or_fifty_rows(bench, source, built):
    bench.tell(Load("active", built), source(loop=True, rate_hz=10))
    bench.run(3.5)
    assert [len(event["rows"]) for event in bench.of("results")] == [
        11,
        11,
        11,
    ]  # the row that is due at that second, too
    bench.events.clear()
    bench.tell(source(loop=True, rate_hz=400))
    bench.run(0.5)
    assert {len(event["rows"]) for event in bench.of("results")[1:]} == {50}


def test_nothing_happens_without_a_model_or_a_source(bench, source, built):
    assert bench.engine.wait_s() is None
    bench.tell(source())
    assert bench.engine.wait_s() is None
    bench.run(5.0)
    assert bench.events == [{"event": "source", "name": "belt"}]
    bench.tell(Load("active", built))
    bench.run(1.6)
    assert bench.rows()[0][0] == "belt:0"  # the source waited for the model


def test_replay_without_loop_ends_and_says_so(bench, source, built):
    bench.tell(Load("active", built), source())
    bench.run(60.0)
    assert [row[0] for row in bench.rows()] == [f"belt:{i}" for i in range(30)]
    assert bench.events[-1] == {"event": "source_ended", "name": "belt"}
    assert bench.engine.wait_s() is None


def test_pause_keeps_the_place_and_resume_makes_no_burst(bench, source, built):
    bench.tell(Load("active", built), source(loop=True, rate_hz=10))
    bench.run(1.95)
    bench.tell(Pause())
    before = len(bench.rows())
    assert before == 20
    bench.run(100.0)
    assert len(bench.rows()) == before
    bench.tell(Resume())
    bench.run(1.01)
    bench.engine.flush()
    assert [row[0] for row in bench.rows()[before:]] == [f"belt:{i % 30}" for i in range(20, 31)]


def test_stop_is_the_last_command(bench, built):
    assert bench.tell(Load("active", built), Pause(), Resume(), Unload(), Stop()) == [True, True, True, True, False]


def test_loaded_event_says_everything(bench, built):
    bench.tell(Load("active", built))
    (event,) = bench.of("loaded")
    bundle = bundles.manifest_of(built).bundle_id
    assert event.pop("load_ms") >= 0
    assert event == {
        "event": "loaded",
        "role": "active",
        "bundle": bundle,
        "version": "1.0.0",
        "golden": "exact",
        "delegate": "xnnpack",
    }


SPOILS = {
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "no readable manifest.json"),
    "manifest cut": (lambda f: (f / "manifest.json").write_bytes(b'{"a'), "not JSON"),
    "artefact flipped": (lambda f: flip(f / "model.tflite"), "model.tflite: file changed"),
    "artefact gone": (lambda f: (f / "model.tflite").unlink(), "No such file"),
    "artefact of no kind": (lambda f: resealed(f, "model.tflite", b"PK" * 300), "refuses the file"),
    "artefact empty": (lambda f: resealed(f, "model.tflite", b""), "refuses the file"),
    "other answers": (lambda f: other_weights(f), "golden self-test failed: up to "),
    "wrong golden": (lambda f: resealed(f, "golden/golden.json", b"{}"), "field 'inputs' is missing"),
    "profile of nothing": (lambda f: resealed(f, "model.tflite.profile.json", b"{}"), "profile"),
}


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def resealed(folder, name, data):
    (folder / name).write_bytes(data)
    bundles.reseal(folder)


def other_weights(folder):
    tiny.write_tflite(tiny.make(3), folder / "model.tflite")
    bundles.write_golden(folder, [])
    bundles.reseal(folder)


# A shadow is not counted, so its profile is not read.
CASES = [
    (spoil, role)
    for spoil in SPOILS
    for role in ("active", "shadow")
    if (spoil, role) != ("profile of nothing", "shadow")
]


@pytest.mark.parametrize(("spoil", "role"), CASES)
def test_bad_bundle_is_refused_and_the_one_before_goes_on(bench, source, built, bundle, spoil, role):
    bench.tell(Load("active", built), Load("shadow", built), source(loop=True))
    bench.run(1.0)
    epoch = CounterFile(bench.counters).read().epoch
    change, words = SPOILS[spoil]
    change(bundle)
    bench.tell(Load(role, bundle))
    (failed,) = bench.of("load_failed")
    assert failed["role"] == role
    assert failed["bundle"] == "bundle"
    assert words in failed["reason"]
    assert "\n" not in failed["reason"]
    bench.events.clear()
    bench.run(2.0)
    active = bundles.manifest_of(built).bundle_id
    assert {event["bundle"] for event in bench.of("results", "shadow")} == {active}
    assert {event["event"] for event in bench.events} == {"results", "shadow"}
    assert CounterFile(bench.counters).read().epoch == epoch


def test_slot_folder_must_hold_the_bundle_that_it_is_named_by(bench, built, tmp_path):
    right = tmp_path / bundles.manifest_of(built).bundle_id
    wrong = tmp_path / ("ab" * 32)
    for folder in (right, wrong):
        shutil.copytree(built, folder)
    bench.tell(Load("active", right), Load("active", wrong))
    assert [event["event"] for event in bench.events] == ["loaded", "load_failed"]
    assert bench.events[1]["bundle"] == "ab" * 32
    assert "not the one that it is named by" in bench.events[1]["reason"]


def test_first_model_that_cannot_be_loaded_leaves_an_empty_runner(bench, source, bundle):
    flip(bundle / "model.tflite")
    bench.tell(Load("active", bundle), source())
    assert bench.engine.wait_s() is None
    assert not bench.counters.exists()


def test_counters_belong_to_the_active_bundle(bench, source, built, tmp_path):
    other = bundles.build(tmp_path / "v2", seed=7, version="2.0.0")
    bench.tell(Load("active", built), source(loop=True))
    bench.run(5.0)
    bench.engine.flush()
    first = CounterFile(bench.counters).read()
    assert first.bundle == bundles.manifest_of(built).bundle_id
    assert first.counters.n_infer == len(bench.rows())
    assert sum(first.counters.brightness) == len(bench.rows())
    bench.tell(Load("active", other))
    second = CounterFile(bench.counters).read()
    assert second.bundle == bundles.manifest_of(other).bundle_id
    assert second.epoch != first.epoch
    assert second.counters.n_infer == 0


def test_counters_are_never_behind_the_results(bench, source, built):
    seen = []

    def emit(event):
        if event["event"] == "results":
            seen.append(CounterFile(bench.counters).read().counters.n_infer - event["first"] - len(event["rows"]))

    bench.engine = Engine(Settings("litert", bench.counters), emit, lambda: bench.now)
    bench.tell(Load("active", built), source(loop=True))
    bench.run(10.0)
    assert len(seen) > 5
    assert set(seen) == {0}


def test_old_results_leave_under_the_old_bundle(bench, source, built, tmp_path):
    other = bundles.build(tmp_path / "v2", seed=7, version="2.0.0")
    bench.tell(Load("active", built), source(loop=True))
    bench.run(0.42)
    bench.tell(Load("active", other))
    kinds = [event["event"] for event in bench.events]
    assert kinds == ["loaded", "source", "results", "loaded"]
    assert bench.events[2]["bundle"] == bundles.manifest_of(built).bundle_id
    bench.run(2.0)
    assert bench.of("results")[1]["first"] == len(bench.of("results")[0]["rows"])


def test_bad_input_is_one_error_and_the_next_one_is_answered(bench, built, tmp_path):
    np.save(tmp_path / "big.npy", np.zeros((3, 9, 9), np.uint8))
    bench.tell(Load("active", built), UseSource("big", {"kind": "replay", "path": f"{tmp_path}/big.npy", "rate_hz": 5}))
    bench.run(0.7)
    errors = bench.of("error")
    assert [event["ref"] for event in errors] == ["big:0", "big:1", "big:2"]
    assert all("the artefact wants [8, 8, 1]" in event["reason"] for event in errors)
    bench.engine.flush()
    counted = CounterFile(bench.counters).read().counters
    assert (counted.n_infer, counted.n_err, counted.n_sampled) == (3, 3, 0)
    assert bench.rows() == []


@pytest.fixture
def pixels(tmp_path):
    """Four images of four pixels, some of them black."""
    np.save(
        tmp_path / "pixels.npy",
        np.array([[9, 3, 3, 9], [0, 3, 9, 3], [3, 9, 0, 3], [9, 3, 9, 3]], np.uint8).reshape(4, 2, 2),
    )
    return UseSource("p", {"kind": "replay", "path": str(tmp_path / "pixels.npy"), "rate_hz": 10})


def test_model_that_gives_no_number_is_counted_and_goes_on(pixels, tmp_path):
    bench = Bench(tmp_path, "onnxruntime")
    bench.tell(Load("active", bundles.build_logarithm(tmp_path / "log")), pixels)
    bench.run(5.0)
    assert bench.of("loaded")[0]["golden"] == "tolerance"
    assert [row[:2] for row in bench.rows()] == [["p:0", 0], ["p:2", 1], ["p:3", 0]]
    (error,) = bench.of("error")
    assert error["ref"] == "p:1"
    assert "the logits are not finite" in error["reason"]
    counted = CounterFile(bench.counters).read().counters
    assert (counted.n_infer, counted.n_err) == (4, 1)


def test_shadow_that_fails_is_counted_and_the_answers_go_on(pixels, tmp_path):
    bench = Bench(tmp_path, "onnxruntime")
    folders = [bundles.build_logarithm(tmp_path / f"log{first}", first) for first in (0, 2)]
    bench.tell(Load("active", folders[0]), Load("shadow", folders[1]), pixels)
    bench.run(5.0)
    totals = bench.of("shadow")[-1]
    # Of the three inputs that the active model answers, the shadow fails on one and agrees on one.
    assert (totals["n"], totals["agree"], totals["errors"]) == (2, 1, 1)
    assert len(bench.rows()) == 3
    assert len(bench.of("error")) == 1  # the active model's own


def test_source_that_cannot_be_opened_leaves_the_one_before(bench, source, built, tmp_path):
    bench.tell(Load("active", built), source(loop=True))
    missing = {"kind": "replay", "path": str(tmp_path / "none.npy"), "rate_hz": 5}
    bench.tell(UseSource("gone", missing), UseSource("odd", {"kind": "lidar"}))
    failed = bench.of("source_failed")
    assert [event["name"] for event in failed] == ["gone", "odd"]
    assert "No such file or directory" in failed[0]["reason"]
    assert "use one of replay" in failed[1]["reason"]
    bench.run(2.0)
    assert {row[0].split(":")[0] for row in bench.rows()} == {"belt"}


def test_shadow_is_compared_and_touches_no_answer(bench, source, built, tmp_path):
    other = bundles.build(tmp_path / "v2", seed=7, version="2.0.0")
    bench.tell(Load("active", built), Load("shadow", other), source(loop=True))
    bench.run(5.0)
    bench.engine.close()
    active, shadow = (Model.open(folder, runtime="litert") for folder in (built, other))
    raw = tiny.images(30, seed=11)
    agree = [active.infer(one).cls == shadow.infer(one).cls for one in raw]
    last = bench.of("shadow")[-1]
    assert last["bundle"] == shadow.bundle
    assert last["n"] == len(bench.rows())
    assert last["agree"] == sum(agree[i % 30] for i in range(last["n"]))
    assert 0 < last["agree"] < last["n"]
    assert last["errors"] == 0
    assert last["active_us"] > 0
    assert last["shadow_us"] > 0
    assert [row[1] for row in bench.rows()] == [active.infer(raw[i % 30]).cls for i in range(last["n"])]
    moments = len(bench.of("shadow"))
    assert 8 <= moments <= 11  # every half second


def test_comparison_begins_again_with_another_active_model_and_ends_with_unload(bench, source, built, tmp_path):
    other = bundles.build(tmp_path / "v2", seed=7, version="2.0.0")
    bench.tell(Load("active", built), Load("shadow", built), source(loop=True))
    bench.run(3.2)
    before = bench.of("shadow")[-1]
    assert before["agree"] == before["n"] > 50
    bench.tell(Load("active", other))
    bench.run(0.6)
    assert 0 < bench.of("shadow")[-1]["n"] < 15
    bench.tell(Unload())
    assert bench.events[-1]["event"] == "unloaded"
    bench.events.clear()
    bench.run(2.0)
    assert bench.of("shadow") == []


def test_profile_of_another_model_is_refused(bench, bundle):
    path = bundle / "model.tflite.profile.json"
    words = json.loads(path.read_text())
    words["labels"] = ["a", "b", "c", "d"]
    profile = ReferenceProfile.from_bytes(json.dumps(words).encode())
    path.write_bytes(profile.to_bytes())
    bench.tell(Load("active", bundles.reseal(bundle)))
    assert "other classes than the manifest" in bench.of("load_failed")[0]["reason"]


def test_counter_file_that_cannot_be_made_refuses_the_load(tmp_path, built):
    bench = Bench(tmp_path)
    bench.engine = Engine(Settings("litert", tmp_path / "no" / "c.bin"), bench.events.append, lambda: 0.0)
    bench.tell(Load("active", built))
    assert "cannot make the counter file" in bench.of("load_failed")[0]["reason"]
