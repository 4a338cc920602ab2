# SPDX-License-Identifier: Apache-2.0
"""The story of clothes and a second camera: its pieces here, the whole of it as a long test."""

import itertools

import numpy as np
import pytest
from rich.console import Console

from compress import recipe
from compress.sources.captured import read_captured
from examples.heal import build, data, device, model, story


def test_every_photograph_has_one_use():
    uses = (data.TRAIN, data.CALIBRATION, data.VALIDATION, data.CAPTURED, data.WATCHED, data.TEACHER)
    for a, b in itertools.pairwise(sorted(uses, key=lambda one: one.start)):
        assert a.start < a.stop <= b.start < b.stop <= 60_000


def test_second_camera_is_dark_foggy_noisy_and_the_same_for_a_seed():
    x = np.zeros((400, 28, 28), np.uint8)
    x[:, 8:20, 8:20] = 255
    seen = data.second_camera(x, 3)
    assert seen.dtype == np.uint8
    assert np.array_equal(seen, data.second_camera(x, 3))
    assert (seen != data.second_camera(x, 4)).any()
    corners, middles = seen[:, :3, :3].astype(float), seen[:, 12:16, 12:16].mean((1, 2))
    assert abs(corners.mean() - data.FOG) < 1
    assert abs(corners.std() - data.NOISE) < 1
    low, high = (data.FOG + 255 * light for light in data.LIGHT)
    assert low - 8 < middles.min() < low + 8
    assert high - 8 < middles.max() < high + 8


def test_recipe_of_the_story_names_what_is_there():
    read = recipe.load(build.RECIPE)
    assert read.file(read.model.teacher_weights).stat().st_size < 300_000
    assert [step.kind for step in read.steps] == ["distill", "quantize"]
    parameters = [sum(p.numel() for p in net.parameters()) for net in (model.student(), model.teacher())]
    assert parameters == [10_990, 65_370]


def test_device_sends_what_a_campaign_exports(tmp_path):
    x = np.random.default_rng(1).integers(0, 255, (30, 28, 28)).astype(np.uint8)
    assert device.send(x, tmp_path / "c.npz") == 30
    found = read_captured(tmp_path / "c.npz")
    assert found.devices == dict.fromkeys(device.DEVICES, 10)
    assert np.array_equal(found.x, x[[*range(0, 30, 3), *range(1, 30, 3), *range(2, 30, 3)]])


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_student_heals_to_within_two_points_of_one_that_was_trained_on_both_cameras(tmp_path):
    """What examples/heal promises, on 10 000 test photographs of each camera that no step saw."""
    found = story.heal(tmp_path, 1, Console(stderr=True))
    assert 5 <= found.watch.first_alarm <= 7
    assert found.second["healed"].mean() - found.second["before"].mean() > 0.3
    assert found.gap.points >= -2.0
    assert found.forgotten.points >= -1.0
    assert story.render([found]).row_count == 4
