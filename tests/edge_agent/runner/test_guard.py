# SPDX-License-Identifier: Apache-2.0
"""The input contract at the edge: what is wrong with an input is found, counted, told, and handled by the policy."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge_agent
from edge_agent.counters import CounterFile, Tallies
from edge_agent.runner.commands import Load, UseSource
from edge_agent.runner.guard import REPORT_EVERY_S, Guard
from edge_contract.artefact import TensorSpec
from edge_contract.errors import DataError
from edge_contract.input_contract import VIOLATIONS, InputContract
from edge_contract.manifest import MANIFEST_NAME
from edge_contract.preprocess import Preprocess
from edge_contract.series import Series
from tests.edge_agent.runner import bundles, tiny
from tests.edge_agent.runner.bench import Bench

IMAGE = TensorSpec("x", "input", (1, 8, 8, 1), "int8", "NHWC", scale=1 / 255, zero_point=-128)
SERIES = TensorSpec("x", "input", (1, 5, 2), "int8", "NWC", scale=0.1, zero_point=0)
WINDOW = np.arange(10.0).reshape(5, 2)


def series(**contract):
    return Guard(InputContract(**contract), Series(2, 5, 5), SERIES, clock=lambda: 100.0)


def image(**contract):
    return Guard(InputContract(**contract), Preprocess(scale=1 / 255), IMAGE, clock=lambda: 100.0)


def faults(guard, *inputs, **words):
    return [guard.look(one, **words).fault for one in inputs]


def with_value(value):
    return np.where(WINDOW == 3.0, value, WINDOW)


WRONG = {
    "three rows": (series, np.zeros((3, 2)), "shape"),
    "another rank": (series, np.zeros(10), "shape"),
    "complex numbers": (series, np.zeros((5, 2), complex), "dtype"),
    "a list": (series, [[1.0, 2.0]] * 5, "dtype"),
    "texts": (series, np.full((5, 2), "a"), "dtype"),
    "NaN": (series, with_value(np.nan), "nan"),
    "an infinity": (series, with_value(-np.inf), "nan"),
    "another size of image": (image, np.zeros((9, 8), np.uint8), "shape"),
    "no channel": (image, np.zeros((8, 8, 0), np.uint8), "shape"),
    "a NaN image": (image, np.full((8, 8), np.nan, np.float32), "nan"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_and_counted_and_the_next_good_input_is_good(name):
    make, raw, fault = WRONG[name]
    guard = make()
    seen = guard.look(raw)
    assert seen.fault == fault
    assert seen.reason
    assert guard.tallies() == Tallies(**{fault: 1, "refused": 1})
    good = WINDOW if make is series else np.zeros((8, 8), np.uint8)
    assert faults(guard, good, good, raw, good) == ["", "", fault, ""]


def test_ranges_hold_at_both_ends():
    guard = series(minimum=0.0, maximum=9.0)
    assert faults(guard, WINDOW, WINDOW - 0.01, WINDOW + 0.01, WINDOW.astype(np.int16)) == ["", "range", "range", ""]
    assert guard.look(WINDOW * 2).reason == "values from 0 to 18, allowed are 0 to 9"


def test_a_range_of_bytes_is_judged_only_where_it_is_narrower_than_a_byte():
    bright = np.full((8, 8), 250, np.uint8)
    assert faults(image(maximum=255.0, minimum=0.0), bright) == [""]
    assert faults(image(maximum=240.0), bright, bright - 20) == ["range", ""]


def test_clamp_mends_values_and_refuses_what_cannot_be_mended():
    guard = series(policy="clamp", minimum=0.0, maximum=9.0)
    assert guard.look(WINDOW + 2).raw.max() == 9.0
    mended = guard.look(with_value(np.nan)).raw
    assert mended[mended != WINDOW].tolist() == [0.0]
    assert guard.look(with_value(np.inf)).raw.max() == 9.0
    assert guard.look(with_value(-np.inf)).raw.min() == 0.0
    assert faults(guard, np.zeros((3, 2))) == ["shape"]
    assert guard.tallies() == Tallies(range=1, nan=3, shape=1, clamped=4, refused=1)
    open_ended = series(policy="clamp").look(with_value(np.inf)).raw
    assert np.isfinite(open_ended).all()


def test_the_caller_s_array_is_never_changed():
    raw = with_value(np.inf)
    before = raw.copy()
    series(policy="clamp", maximum=2.0).look(raw)
    assert (raw == before).all()


def test_pass_counts_and_lets_everything_through():
    guard = series(policy="pass", minimum=0.0, maximum=9.0, stuck_after=3)
    assert faults(guard, WINDOW + 1, WINDOW, WINDOW, WINDOW, np.zeros((3, 2))) == [""] * 5
    assert guard.tallies() == Tallies(range=1, stuck=1, shape=1)


def test_the_same_or_an_earlier_time_is_a_stale_frame_and_so_is_an_old_one():
    guard = series(max_age_s=2.0)
    seen = [guard.look(WINDOW, taken_at=at).fault for at in (99.0, 99.0, 98.5, 99.5, 97.0, 100.0)]
    assert seen == ["", "stale", "stale", "", "stale", ""]
    assert guard.look(WINDOW, taken_at=97.9).reason
    assert series().look(WINDOW, taken_at=1.0).fault == "", "without a limit any age will do"


def test_k_identical_inputs_are_a_stuck_sensor_until_one_differs():
    guard = series(stuck_after=4)
    assert faults(guard, *[WINDOW] * 6, WINDOW + 1, *[WINDOW] * 3) == [""] * 3 + ["stuck"] * 3 + [""] * 4


def test_one_pixel_outside_the_sample_tells_frames_apart():
    """The sample sees one of many pixels; equality is proved on all of them."""
    big = TensorSpec("x", "input", (1, 64, 64, 1), "int8", "NHWC", scale=1 / 255, zero_point=-128)
    guard = Guard(InputContract(stuck_after=3), Preprocess(), big)
    frames = [np.zeros((64, 64), np.uint8) for _ in range(8)]
    for i, frame in enumerate(frames):
        frame[1, 1] = i
    assert faults(guard, *frames) == [""] * 8
    assert faults(guard, *[frames[0]] * 6)[-1] == "stuck"


def test_a_flat_input_is_stuck_where_the_manifest_says_so():
    dark, noisy = np.full((8, 8), 7, np.uint8), tiny.images(1)[0]
    assert faults(image(may_be_flat=False), noisy, dark, noisy) == ["", "stuck", ""]
    assert faults(image(), dark) == [""]
    sampled_flat = np.zeros((64, 64), np.uint8)
    sampled_flat[1, 1] = 3
    big = TensorSpec("x", "input", (1, 64, 64, 1), "int8", "NHWC", scale=1 / 255, zero_point=-128)
    assert Guard(InputContract(may_be_flat=False), Preprocess(), big).look(sampled_flat).fault == ""


def test_news_come_at_once_and_then_once_a_minute():
    guard = series()
    assert guard.news(0.0) is None
    faults(guard, with_value(np.nan))
    assert guard.news(1.0)["name"] == "1 nan"
    faults(guard, with_value(np.nan), np.zeros(3))
    assert guard.news(2.0) is None
    told = guard.news(1.0 + REPORT_EVERY_S)
    assert (told["nan"], told["shape"], told["policy"]) == (1, 1, "refuse")
    assert guard.news(500.0) is None


def contracted(folder, **words):
    """Put a contract into a bundle's manifest."""
    manifest = replace(bundles.manifest_of(folder), input_contract=InputContract(**words))
    (folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    return folder


def test_a_stuck_source_is_dropped_and_told_and_not_held_against_the_model(tmp_path, bundle):
    frames = np.concatenate([tiny.images(5), np.repeat(tiny.images(1), 10, axis=0)])
    np.save(tmp_path / "frames.npy", frames)
    bench = Bench(tmp_path)
    spec = {"kind": "replay", "path": str(tmp_path / "frames.npy"), "rate_hz": 20}
    bench.tell(Load("active", contracted(bundle, stuck_after=4)), UseSource("belt", spec))
    bench.run(30.0)
    bench.engine.close()
    reading = CounterFile(bench.counters).read()
    assert len(bench.rows()) == 8
    assert not bench.of("error")
    assert (reading.counters.n_infer, reading.counters.n_err, reading.counters.n_drop) == (8, 0, 7)
    assert reading.tallies == Tallies(stuck=7, refused=7)
    assert [event["stuck"] for event in bench.of("input")] == [7]


def test_an_application_is_told_by_an_exception(bundle):
    with edge_agent.Model.open(contracted(bundle, maximum=100.0), runtime="litert") as model:
        with pytest.raises(DataError, match=r"input contract: values from .* allowed are -inf to 100"):
            model.predict(np.full((8, 8), 200, np.uint8))
        assert model.predict(np.full((8, 8), 20, np.uint8)).cls in range(4)


def test_a_contract_changes_the_bundle_s_id_and_none_does_not(built, tmp_path):
    copy = Path(shutil.copytree(built, tmp_path / "copy"))
    before = bundles.manifest_of(copy)
    assert "input_contract" not in before.to_json()
    assert bundles.manifest_of(contracted(copy, stuck_after=9)).bundle_id != before.bundle_id
    assert bundles.manifest_of(copy).input_contract == InputContract(stuck_after=9)


def test_every_violation_has_its_counter():
    assert set(VIOLATIONS) <= set(Tallies._fields)
