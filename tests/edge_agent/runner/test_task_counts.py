# SPDX-License-Identifier: Apache-2.0
"""Every task: counted like its reference, judged by its own channels, told in its own words."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import skimage.data

from edge_agent.counters import CounterFile
from edge_agent.runner.task_counts import TaskObserver, Told, shared, telling
from edge_contract.boxes import Boxes
from edge_contract.counts import Counters
from edge_contract.errors import ModelError, ProfileError, SummaryError
from edge_contract.postprocess import Postprocess
from edge_contract.profile import ReferenceProfile
from edge_contract.summary import decode, decode_counters, encode_counters
from edge_contract.task_channels import tables
from edge_contract.tasks import TASKS, Form, channels_of
from edge_contract.verdict import DriftState, Level, judge
from export.bundle.reference_tasks import build_task_profile, cluster_effect
from tests.edge_agent.runner import faces
from tests.support import task_models
from tests.support.task_models import MODELS, count, images, make, spec, summary

DARK = {"detect": 0.8, "regress": 0.7, "anomaly": 0.5, "segment": 0.9}


@lru_cache
def known(task):
    model = MODELS[task]()
    return model, build_task_profile(model, images(600, 0))


@pytest.mark.parametrize("task", TASKS[1:])
def test_a_window_like_the_reference_is_ok_and_a_darker_one_is_told_by_its_own_channels(task):
    model, profile = known(task)
    assert profile.task == task
    window = summary(profile, count(model, profile, images(260, 5)))
    assert decode(window.encode()) == window
    assert len(window.encode()) <= 512
    found, state = judge(profile, window, DriftState())
    assert (found.level, found.estimated_accuracy, found.valid) == (Level.OK, None, False)
    assert tuple(c.name for c in found.channels) == channels_of(task)
    dark = summary(profile, count(model, profile, (images(260, 6) * DARK[task]).astype(np.uint8)))
    for _ in range(2):
        found, state = judge(profile, dark, state)
    assert found.level is Level.ALARM
    assert "no estimate of the accuracy for this task" in found.reason
    own = {c.name: c for c in found.channels}
    first = channels_of(task)[0]
    assert own[first].p < 1e-6
    assert own[first].text in found.moved
    assert "images darker than the reference's" in own["input"].text


@pytest.mark.parametrize("task", TASKS[1:])
def test_the_reference_is_what_the_observer_counts_of_the_same_inputs(task):
    model, profile = known(task)
    again = replace(count(model, profile, images(600, 0)), latency=(0,) * 32, latency_sum_us=0)
    assert again == profile.counters
    assert ReferenceProfile.from_bytes(profile.to_bytes()) == profile
    assert len(profile.to_bytes()) <= 4096


@pytest.mark.parametrize("task", TASKS[1:])
def test_windows_of_one_task_add_up_exactly_and_those_of_others_refuse(task):
    model, profile = known(task)
    one, two = (count(model, profile, images(100, seed)) for seed in (7, 8))
    both = one.merge(two)
    assert both == two.merge(one)
    assert both.tables == tuple(
        tuple(map(sum, zip(*pair, strict=True))) for pair in zip(one.tables, two.tables, strict=True)
    )
    assert both.minus(two) == one
    assert decode_counters(encode_counters(both)) == both
    assert Counters.from_list(both.to_list()) == both
    for other in TASKS[1:]:
        if other != task:
            with pytest.raises(SummaryError, match=f"task '{task}' against '{other}'"):
                one.merge(known(other)[1].counters)
    foreign = summary(known("detect" if task != "detect" else "regress")[1], one)
    with pytest.raises(ProfileError, match="was counted with profile"):
        judge(profile, foreign, DriftState())


@pytest.mark.parametrize("task", TASKS[1:])
def test_the_counter_file_carries_a_task_whole_or_reads_as_nothing(task, tmp_path):
    model, profile = known(task)
    counters = count(model, profile, images(30, 9))
    with CounterFile.create(tmp_path / "c", 1, "ab" * 32, counters.form) as file:
        file.write(counters)
        assert CounterFile(tmp_path / "c").read().counters == counters
    data = (tmp_path / "c").read_bytes()
    for size in (0, 40, 52, 60, 70, len(data) - 1):
        (tmp_path / "c").write_bytes(data[:size])
        assert CounterFile(tmp_path / "c").read() is None
    for at in range(52, 76):  # the form
        (tmp_path / "c").write_bytes(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :])
        reading = CounterFile(tmp_path / "c").read()
        assert reading is None or reading.counters == counters


def test_answers_are_counted_where_they_belong():
    _, profile = known("detect")
    observer = TaskObserver(profile)
    tell = lambda best, *boxes: Told(best, None, tuple(np.array(row) for row in boxes))  # noqa: E731
    observer.take(tell(0.9, [2.0], [0.9, 0.6], [0.2, 0.3], [1, 0]), None, 1000.0)
    observer.take(tell(0.0, [0.0], np.zeros(0), np.zeros(0), np.zeros(0, int)), None, 1000.0)
    observer.take(tell(0.7, [1.0], [0.7], [0.4], [9]), None, 1000.0)
    found = observer.counters()
    boxes, scores, areas, kinds = found.tables
    assert boxes[:4] == (1, 1, 1, 0)
    assert sum(scores) == sum(areas) == 3
    assert kinds == (1, 2), "an unknown class is counted with the last one"
    found.check()


def test_what_is_not_finite_is_an_error_and_enters_no_table():
    _, profile = known("regress")
    observer = TaskObserver(profile)
    for bad in (np.nan, np.inf):
        observer.take(Told(bad, np.zeros(3), (np.zeros(1),) * 3), None, 1000.0)
        observer.take(Told(0.0, np.array([0.0, bad, 0.0]), (np.zeros(1),) * 3), None, 1000.0)
    found = observer.counters()
    assert (found.n_infer, found.n_sampled, found.n_err) == (4, 0, 4)
    assert not any(map(any, found.tables))


def test_an_empty_scene_is_no_frozen_source():
    """A detector that finds nothing in any frame answers alike each time; the reference decides whether that is odd."""
    model, profile = known("detect")
    empty = summary(profile, count(model, profile, images(200, 3) // 4))
    found, _ = judge(profile, empty, DriftState())
    assert found.level is Level.WARN
    assert any("frames without a box" in text for text in found.moved)
    assert "frozen" not in found.reason


def test_one_output_has_the_finer_histogram_and_several_are_seen_together():
    one = build_task_profile(task_models.regression(1), images(300, 0))
    assert (one.counters.form, one.projection.source) == (Form("regress", (32,)), "none")
    many = build_task_profile(task_models.regression(12), images(300, 0))
    assert many.counters.form.tables == (16,) * 8
    assert (many.projection.source, many.projection.dimension) == ("outputs", 12)


def test_a_score_of_its_own_is_an_anomaly_score():
    shown = (spec("y", "output", (1, 1)),)
    model = make("anomaly", shown, lambda x: {"y": x.reshape(1, -1)[:, :1].astype(np.float32)})
    profile = build_task_profile(model, images(300, 0))
    assert telling(model, profile)(images(1, 1)[0], model.predict(images(1, 1)[0])).signal == pytest.approx(
        images(1, 1)[0, 0, 0] / 255, abs=1e-6
    )


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "map"])
def test_areas_are_found_in_every_layout(layout):
    names = ("sky", "road", "tree")

    def answer(x):
        kinds = (x[0, ..., 0] * 2.999).astype(int)
        rows = np.eye(3, dtype=np.float32)[kinds] * 9
        shown = {"NHWC": rows[None], "NCHW": np.moveaxis(rows, -1, 0)[None], "map": kinds[None].astype(np.float32)}
        return {"y": shown[layout]}

    shape = {"NHWC": (1, 8, 8, 3), "NCHW": (1, 3, 8, 8), "map": (1, 8, 8)}[layout]
    model = make("segmentation", (spec("y", "output", shape, "NC" if layout == "map" else layout),), answer, names)
    profile = build_task_profile(model, images(200, 0))
    raw = images(1, 4)[0]
    areas = np.bincount((raw / 255 * 2.999).astype(int).reshape(-1), minlength=3) / 64
    assert telling(model, profile)(raw, model.predict(raw)).rows[0] == pytest.approx(areas)
    assert sum(shared(np.full(100, 0.01))) == pytest.approx(1.0)


def test_the_cluster_effect_is_that_of_identical_boxes_and_none_for_independent_ones():
    random = np.random.default_rng(0)
    alone = [random.integers(0, 4, 3) for _ in range(4000)]
    twins = [np.repeat(random.integers(0, 4, 1), 3) for _ in range(4000)]
    assert cluster_effect(alone, 4) == pytest.approx(1.0, abs=0.1)
    assert cluster_effect(twins, 4) == pytest.approx(3.0, abs=0.2)
    assert cluster_effect([np.zeros(0, int)] * 5, 4) == 1.0


def test_alike_boxes_of_a_frame_alarm_no_more_often_than_others():
    """Five boxes of each frame have one class and one score; without the correction most windows would be unlike."""

    def answer(x):
        grey = x[0, ..., 0]
        boxes = np.zeros((1, 5, 4), np.float32)
        boxes[..., 2:] = 0.2 + 0.5 * grey[2, 0]
        is_cat, sure = grey[0, 0] > 0.5, 0.5 + grey[1, 0] / 2.01
        row = (sure, 0.0) if is_cat else (0.0, sure)
        return {"b": boxes, "s": np.array([[row] * 5], np.float32)}

    shown = (spec("b", "boxes", (1, 5, 4)), spec("s", "scores", (1, 5, 2)))
    post = Postprocess("none", 0.4, boxes=Boxes("xyxy"))
    model = make("detection", shown, answer, ("cat", "dog"), postprocess=post)
    profile = build_task_profile(model, images(1500, 0))
    assert min(profile.parts.clusters[1:]) == pytest.approx(5.0, abs=0.5)
    levels = [
        judge(profile, summary(profile, count(model, profile, images(150, 50 + i))), DriftState())[0] for i in range(8)
    ]
    assert min(found.p_family for found in levels) > 1e-3


def test_a_classifier_needs_labels_and_few_inputs_make_no_reference():
    model = make("classification", (spec("y", "logits", (1, 2)),), lambda x: {"y": x[:, 0, :2, 0]}, ("a", "b"))
    with pytest.raises(ModelError, match="a classifier needs labels"):
        build_task_profile(model, images(200, 0))


def jittered(picture, count, seed, gain=1.0):
    """A camera that moves and breathes: crops of a picture, each a little elsewhere, larger and brighter."""
    random, found = np.random.default_rng(seed), []
    for _ in range(count):
        size = int(random.integers(200, 240))
        top, left = random.integers(0, 256 - size, 2)
        rows = np.linspace(top, top + size - 1, 128).astype(int)
        columns = np.linspace(left, left + size - 1, 128).astype(int)
        light = gain * random.uniform(0.8, 1.1)
        found.append((picture[rows][:, columns] * light).clip(0, 255).astype(np.uint8))
    return np.stack(found)


@pytest.mark.long
def test_a_real_face_detector_tells_a_lens_that_was_covered():
    astronaut, model = skimage.data.astronaut()[:512:2, :512:2], faces.face_model()
    profile = build_task_profile(model, jittered(astronaut, 300, 0))
    assert profile.parts.names == ("face",)
    found, _ = judge(profile, summary(profile, count(model, profile, jittered(astronaut, 150, 1))), DriftState())
    assert found.level is Level.OK
    covered = astronaut.copy()
    covered[:140] = 90  # where the face is
    found, _ = judge(profile, summary(profile, count(model, profile, jittered(covered, 150, 2))), DriftState())
    assert found.level is Level.WARN
    told = {c.name: c.text for c in found.channels}
    assert "frames without a box" in told["score"]
    assert "boxes per frame" in told["boxes"]


def test_what_the_reference_never_showed_is_told_and_what_it_showed_is_not():
    """Each frame of the reference has one box: no bin but one expects anything, and still two boxes are odd."""
    _, profile = known("detect")
    reference = profile.counters
    one_box = lambda n, others: (0, n - others, others, *(0,) * 13)  # noqa: E731
    always = replace(profile, counters=replace(reference, tables=(one_box(600, 0), *reference.tables[1:])))
    seen = lambda others: tables(always, replace(reference, tables=(one_box(200, others), *reference.tables[1:])), 1.0)  # noqa: E731
    assert [seen(others)["boxes"][0].p < 0.001 for others in (0, 1, 2, 12, 200)] == [False, False, False, True, True]
    assert seen(0)["boxes"][0].p_beyond == 1.0
    assert seen(12)["boxes"][0].p_beyond > 0.001 > seen(60)["boxes"][0].p_beyond
