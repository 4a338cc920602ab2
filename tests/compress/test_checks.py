# SPDX-License-Identifier: Apache-2.0
"""What each kind of check finds, on data whose answer is known beforehand; statistics against closed forms."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compress import recipe
from compress.checks import calibration_error as ece
from compress.checks.asked import (
    Balance,
    CalibrationError,
    Direction,
    Functionality,
    Gap,
    Invariance,
    Leakage,
    Schema,
    Slices,
)
from compress.checks.examine import examine, prepare
from compress.checks.outcome import FAILED, FEW, PASSED, CheckResult
from compress.checks.perturb import perturbed
from compress.checks.splits_compared import newcombe
from compress.checks.subject import Subject
from compress.evaluate import paired_difference, score, wilson
from compress.splits import Split, WorkingData
from edge_contract.audio import Audio
from edge_contract.errors import DataError, RecipeError
from edge_contract.preprocess import Preprocess
from edge_contract.series import Series
from tests.compress.conftest import RECIPE

READ = recipe.parse(RECIPE, Path("r.toml"))
LABELS = ("dark", "bright")
IMAGE, SERIES = Preprocess(), Series(2, 3, 3)


def images(values):
    """2×2 images of one grey value and its neighbour, uint8 [N,2,2]: no image is flat."""
    x = np.array(values, np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2)
    x[:, 0, 0] += 1
    return x


def split(values, y, **metadata):
    return Split(images(values), np.array(y, np.int64), {name: np.array(column) for name, column in metadata.items()})


TRAIN = split(range(0, 240, 4), [int(v >= 120) for v in range(0, 240, 4)])


def bright(x):
    """Logits of a model that calls an image bright where its mean is above 120 of 255."""
    mean = x.reshape(len(x), -1).mean(1) * 255
    return torch.stack([120 - mean, mean - 120], 1) / 8


def subject(*checks, validation=None, train=TRAIN, calibration=None, test=(), shipped=bright, reference=None):
    data = WorkingData(train, calibration or train, validation or TRAIN, LABELS, "d" * 64)

    def tensors(part):
        x = torch.from_numpy(np.ascontiguousarray(part.x)).float()[:, None] / 255
        return x, torch.from_numpy(part.y)

    hidden = images(test) if len(test) else np.zeros((0, 2, 2), np.uint8)
    return Subject(
        replace(READ, checks=tuple(checks)),
        data,
        LABELS,
        shipped,
        None,
        reference or (lambda name: bright),
        tensors,
        lambda of: of(hidden),
    )


def found(check, **words) -> CheckResult:
    return examine(subject(check, **words))[0]


# --- slices ---


def sites(right_a, n_a, right_b, n_b):
    """Two sites, of which so many samples are right."""
    y = [1] * n_a + [1] * n_b
    values = [200] * right_a + [20] * (n_a - right_a) + [200] * right_b + [20] * (n_b - right_b)
    return split(values, y, site=["a"] * n_a + ["b"] * n_b)


def test_a_slice_fails_where_its_whole_interval_is_below_the_limit():
    data = sites(95, 100, 60, 100)
    said = found(Slices("by-site", "site", min=75.0), validation=data)
    low, high = (100 * end for end in wilson(60, 100))
    assert high < 75
    assert (said.passed, said.figure, said.low, said.high, said.unit) == (False, 60.0, low, high, "%")
    assert [(row.name, row.verdict) for row in said.rows] == [("a", PASSED), ("b", FAILED)]
    assert said.words.startswith("1 of 2 slices by site failed; 'b': 60.0 % [50.2, 69.1] of 100; asked 75 %")
    assert (said.figure_text, said.limit_text) == ("60.0 % [50.2, 69.1]", "at least 75 %")


def test_bad_luck_of_a_slice_is_no_fault_unless_strict():
    data, check = sites(95, 100, 70, 100), Slices("by-site", "site", min=75.0)
    assert found(check, validation=data).passed
    assert not found(replace(check, strict=True), validation=data).passed


def test_metadata_may_be_of_any_kind():
    data = replace(TRAIN, metadata={"lens": np.array([None, "wide", 3] * 20, object)})
    said = found(Slices("a", "lens", min=1.0), validation=data)
    assert [(row.name, row.samples) for row in said.rows] == [("3", 20), ("None", 20), ("wide", 20)]


def test_a_slice_of_few_samples_is_not_judged_and_none_at_all_does_not_pass():
    data = sites(95, 100, 0, 5)
    said = found(Slices("by-site", "site", min=75.0), validation=data)
    assert (said.passed, said.rows[1].verdict) == (True, FEW)
    said = found(Slices("by-site", "site", min=75.0, samples=101), validation=data)
    assert not said.passed
    assert said.words == "no slice by site has 101 samples (the largest has 100)"


def test_a_drop_against_the_teacher_is_paired():
    data = sites(95, 100, 70, 100)
    check = Slices("by-site", "site", max_drop=10.0, against="teacher")
    said = found(check, validation=data, reference=lambda name: lambda x: torch.tensor([[0.0, 1.0]]).repeat(len(x), 1))
    change = paired_difference(np.ones(100, bool), np.arange(100) < 70)
    assert (said.passed, said.unit, said.limit) == (False, "points", -10.0)
    assert (said.figure, said.low, said.high) == (change.points, change.low, change.high)
    assert "-30.00 points" in said.words
    assert [row.verdict for row in said.rows] == [PASSED, FAILED]
    assert found(replace(check, max_drop=35.0), validation=data).passed


def test_classes_are_slices_by_their_names():
    data = split([200] * 30 + [20] * 30 + [200] * 20, [1] * 30 + [0] * 50)
    said = found(Slices("classes", min=80.0), validation=data)
    assert [(row.name, row.samples) for row in said.rows] == [("dark", 50), ("bright", 30)]
    assert (said.passed, said.figure) == (False, 60.0)


@pytest.mark.parametrize(
    ("model", "name"),
    [({"teacher": "m:t"}, "teacher"), ({"teacher": "", "trained": True}, "original"), ({"teacher": ""}, "float")],
)
def test_what_a_drop_is_taken_against_follows_from_the_recipe(model, name):
    asked = []
    known = {**vars(READ.model), **model}
    one = subject(Slices("a", max_drop=1.0), reference=lambda who: asked.append(who) or bright)
    one = replace(one, recipe=replace(one.recipe, model=type(READ.model)(**known)))
    assert examine(one)[0].passed
    assert asked == [name]


def test_a_column_that_is_not_there_is_refused_before_training():
    one = subject(Slices("a", "sites", min=1.0), validation=sites(1, 2, 1, 2))
    with pytest.raises(RecipeError, match=r"\[check 'a'\]: key 'by': the data have no metadata 'sites'; write 'site'"):
        prepare(one.recipe, one.data, LABELS)


def test_a_column_that_takes_samples_apart_one_by_one_is_refused():
    many = Split(np.zeros((1001, 2, 2), np.uint8), np.zeros(1001, np.int64), {"time": np.arange(1001)})
    one = subject(Slices("a", "time", min=1.0), validation=many)
    with pytest.raises(RecipeError, match="'time' has 1001 values, at most 1000"):
        prepare(one.recipe, one.data, LABELS)


# --- perturbations ---

CHANGED = {  # name: (amount, first image, second image) of two images [[10, 250]]
    "brightness": (0.2, [61, 255], [0, 199]),
    "contrast": (0.5, [0, 255], [50, 210]),
    "flip": (0, [250, 10], [250, 10]),
    "shift": (1, [10, 10], [250, 250]),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_perturbation_of_images_is_what_it_says(name):
    amount, *wanted = CHANGED[name]
    raw = np.array([[[10, 250]], [[10, 250]]], np.uint8)
    after = perturbed(raw, name, amount, IMAGE)
    assert after.dtype == np.uint8
    assert after[:, 0].tolist() == wanted
    assert raw[0, 0].tolist() == [10, 250]


def test_shifts_go_right_left_down_and_up_in_turn():
    raw = np.arange(9, dtype=np.uint8).reshape(1, 3, 3).repeat(4, 0)
    after = perturbed(raw, "shift", 1, IMAGE)
    assert after[0, 0].tolist() == [0, 0, 1]
    assert after[1, 0].tolist() == [1, 2, 2]
    assert after[2, :, 0].tolist() == [0, 0, 3]
    assert after[3, :, 0].tolist() == [3, 6, 6]


def test_noise_has_the_deviation_that_was_asked_and_is_the_same_every_time():
    raw = np.full((40, 30, 30), 128, np.uint8)
    after = perturbed(raw, "noise", 0.1, IMAGE)
    assert after.std() == pytest.approx(25.5, rel=0.02)  # 36 000 draws: the deviation is known to 0.4 %
    assert (after == perturbed(raw, "noise", 0.1, IMAGE)).all()


def test_series_are_measured_by_their_own_channels():
    raw = np.random.default_rng(1).normal(0, (1.0, 50.0), (200, 3, 2)).astype(np.float32)
    moved = perturbed(raw, "offset", 2.0, SERIES) - raw
    assert moved[0, 0] == pytest.approx(2 * raw.std((0, 1)), rel=1e-4)
    assert moved[1] == pytest.approx(-moved[0], abs=1e-3)
    assert perturbed(raw, "gain", 1.0, SERIES)[:2] == pytest.approx(np.stack([2 * raw[0], raw[1] / 2]))
    assert perturbed(raw, "shift", 1, SERIES)[0, 0].tolist() == raw[0, 0].tolist()
    assert perturbed(raw, "shift", 1, SERIES)[1, 0].tolist() == raw[1, 1].tolist()


def test_sound_in_integers_stays_in_its_range():
    after = perturbed(np.array([[30_000, -30_000]] * 2, np.int16), "gain", 0.5, Audio(16_000, 2, 2))
    assert after.tolist() == [[32_767, -32_768], [20_000, -20_000]]


def test_invariance_counts_changed_answers():
    """Brightness ±0.1 moves a mean by 25.5: of 60 images those near 120 go over the edge, half of them."""
    said = found(Invariance("light", "brightness", 5.0, 0.1))
    values = np.arange(0, 240, 4) + 0.25
    signs = np.where(np.arange(60) % 2, -1, 1)
    changed = int(((values > 120) != (values + 25.5 * signs > 120)).sum())
    assert 0 < changed < 15
    low, high = (100 * end for end in wilson(changed, 60))
    assert (said.figure, said.low, said.high) == (pytest.approx(100 * changed / 60), low, high)
    assert said.passed is (low <= 5.0)
    assert found(Invariance("light", "brightness", 5.0, 0.001)).figure == 0
    assert not found(Invariance("light", "brightness", 1.0, 0.1, strict=True)).passed


def test_direction_looks_at_confidence():
    """More contrast of a wide image does not move its mean, more light makes dark images less sure."""
    calm = found(Direction("still", "flip"))
    assert (calm.figure, calm.passed) == (0.0, True)
    surer = subject(Direction("rises", "brightness", 0.0, 0.2), validation=split([130, 110] * 20, [1, 0] * 20))
    said = examine(surer)[0]
    assert not said.passed and said.low > 0
    assert "allowed +0" in said.words


# --- splits against each other ---


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [  # Newcombe 1998, table II, method 10: (a), (b), (d), (h)
        ((48, 80), (56, 70), 0.0524, 0.3339),
        ((3, 10), (9, 10), 0.1705, 0.8090),
        ((0, 29), (5, 56), -0.0381, 0.1926),
        ((0, 10), (10, 10), 0.6075, 1.0000),
    ],
)
def test_difference_of_two_shares_is_that_of_the_literature(first, second, low, high):
    difference = newcombe(score(*first), score(*second))
    assert (difference.low / 100, difference.high / 100) == pytest.approx((low, high), abs=6e-5)


def test_a_gap_fails_where_training_samples_are_surely_better():
    wrong = split([200] * 60, [0] * 30 + [1] * 30)
    said = found(Gap("gap", 20.0), validation=wrong)
    assert (said.passed, said.figure) == (False, 50.0)
    assert found(Gap("gap", 20.0)).figure == 0
    assert found(Gap("gap", 20.0, samples=7), validation=wrong).words.startswith("train 100.0 % [64.6, 100.0] of 7,")


def test_balance_names_the_class_that_is_missing():
    lone = split([200] * 6 + [20] * 2, [1] * 6 + [0] * 2)
    said = found(Balance("balance", 2.0), train=lone)
    assert (said.passed, said.figure, said.limit) == (False, 3.0, 2.0)
    assert found(Balance("balance", 3.0), train=lone).passed
    said = found(Balance("balance", 3.0), train=lone, calibration=split([200] * 3, [1] * 3))
    assert not said.passed
    assert said.words.endswith("class 'dark': 2 training and 0 calibration samples, 1 asked")


def test_leaks_are_found_as_the_model_sees_them():
    """The test split shares two images with the training split."""
    unlike = split([1, 3], [0, 0])
    said = found(Leakage("leakage"), validation=unlike, calibration=split([5], [0]), test=[4, 8, 250])
    assert (said.passed, said.figure, said.unit) == (False, 2.0, "inputs")
    assert said.words == "2 inputs stand in two splits after preprocessing, allowed 0; 2 in train and test"
    assert found(Leakage("leakage", 2), validation=unlike, calibration=split([5], [0]), test=[4, 8]).passed
    clean = found(Leakage("leakage"), validation=unlike, calibration=split([5], [0]), test=[250])
    assert (clean.passed, clean.figure) == (True, 0.0)


# --- schema ---


def test_the_reference_range_is_kept():
    facts = found(Schema("schema")).facts
    assert (facts["shape"], facts["dtype"], facts["samples"]) == ([2, 2], "uint8", 60)
    assert (facts["low"], facts["high"]) == ([0.0], [237.0])
    assert facts["mean"] == [pytest.approx(118.25)]
    assert facts["std"] == [pytest.approx(TRAIN.x.std())]


def test_values_outside_the_training_range_are_counted():
    said = found(Schema("schema"), validation=split([250] * 3 + [20] * 9, [1] * 3 + [0] * 9))
    assert (said.passed, said.figure, said.limit) == (False, 25.0, 1.0)
    assert said.words.startswith("validation: 25.00 % of the values lie outside the training range, allowed 1 %")
    assert found(Schema("schema", 25.0), validation=split([250] * 3 + [20] * 9, [1] * 3 + [0] * 9)).passed


def test_flat_inputs_are_counted():
    flat = Split(np.full((4, 2, 2), 7, np.uint8), np.zeros(4, np.int64))
    assert "100.00 % of the inputs are flat, allowed 1 %" in found(Schema("schema"), validation=flat).words


def test_reals_in_0_to_1_are_no_input_for_a_scale_of_bytes():
    part = Split(images(range(0, 240, 4)).astype(np.float32) / 255, TRAIN.y)
    said = found(Schema("schema"), train=part, validation=part)
    assert not said.passed
    assert said.words.startswith("values of 0 to 0.929412 for a scale of 0.00392157, which expects 0 to 255")


def test_splits_of_other_types_are_named():
    said = found(Schema("schema"), validation=Split(TRAIN.x.astype(np.float32), TRAIN.y))
    assert "types differ: train uint8, calibration uint8, validation float32" in said.words


# --- small sets ---


def test_a_set_must_be_answered(tmp_path):
    np.savez(tmp_path / "s.npz", x=images([10, 200, 230]), y=[0, 1, 0], about_name=["night", "day", "noon"])
    read = replace(READ, path=tmp_path / "r.toml")
    one = replace(subject(Functionality("plates", "s.npz")), recipe=read)
    one = replace(one, recipe=replace(read, checks=(Functionality("plates", "s.npz"),)))
    prepare(one.recipe, one.data, LABELS)
    said = examine(one)[0]
    assert (said.passed, said.low) == (False, None)
    assert said.words == "2 of 3 right, asked 100 %; noon is called 'bright' instead of 'dark'"
    one = replace(one, recipe=replace(read, checks=(Functionality("plates", "s.npz", 66.0),)))
    assert examine(one)[0].passed


def test_a_set_may_be_a_folder_of_images(tmp_path):
    from PIL import Image

    for name, value in (("dark", 9), ("bright", 210)):
        (tmp_path / "plates" / name).mkdir(parents=True)
        Image.fromarray(images([value])[0]).save(tmp_path / "plates" / name / "a.png")
    read = replace(READ, path=tmp_path / "r.toml", checks=(Functionality("plates", "plates/"),))
    assert examine(replace(subject(), recipe=read))[0].passed
    (tmp_path / "plates" / "bright").rename(tmp_path / "plates" / "brigth")
    with pytest.raises(DataError, match="class folder 'brigth' is none of the model's classes; rename it to 'bright'"):
        prepare(read, subject().data, LABELS)


SETS = {
    "nowhere.npz": "'nowhere.npz' is not there, or nothing that can be read",
    "empty.npz": "the set is empty",
    "foreign.npz": "classes 0 to 2 for a model of 2; use 0 to 1",
    "bare.npz": "y is missing",
    "json:dumps": r"json:dumps\(\) failed: TypeError",
    "time:time": "time:time returned a float; return compress.sources.Split",
}


@pytest.mark.parametrize("source", SETS)
def test_a_set_that_cannot_be_used_is_refused_before_training(tmp_path, source):
    np.savez(tmp_path / "empty.npz", x=images([]), y=np.zeros(0, np.int64))
    np.savez(tmp_path / "foreign.npz", x=images([1, 2]), y=[0, 2])
    np.savez(tmp_path / "bare.npz", x=images([1, 2]))
    read = replace(READ, path=tmp_path / "r.toml", checks=(Functionality("set", source),))
    with pytest.raises((DataError, RecipeError), match=SETS[source]):
        prepare(read, subject().data, LABELS)


# --- calibration error ---


def naive_error(confidence, hits, bins):
    """Equation 3 of Guo et al., bin by bin."""
    total = 0.0
    for b in range(bins):
        inside = (confidence >= b / bins) & ((confidence < (b + 1) / bins) | (b == bins - 1))
        if inside.any():
            total += inside.mean() * abs(hits[inside].mean() - confidence[inside].mean())
    return total


def test_calibration_error_is_that_of_the_definition(generator):
    confidence = generator.uniform(0.3, 1.0, 500)
    hits = generator.uniform(size=500) < confidence**2
    assert ece.expected_error(confidence, hits, 15) == pytest.approx(naive_error(confidence, hits, 15), abs=1e-12)


def test_the_interval_of_a_calibrated_model_begins_at_nothing_and_of_a_boaster_does_not():
    """30 draws of 600: a calibrated model's figure is 3 to 6 points by chance alone, its lower end is below 3.

    The interval holds a true 15 points in 90 % of draws (200 draws of 200, 600 and 2 000 samples: 89, 90, 92 %).
    """
    draw = np.random.default_rng(3)
    free, held = 0, 0
    for _ in range(30):
        confidence = draw.uniform(0.4, 1.0, 600)
        u = draw.uniform(size=600)
        free += ece.interval(confidence, u < confidence, 15, 200)[0] < 0.03
        low, high = ece.interval(confidence, u < confidence - 0.15, 15, 200)
        held += low <= 0.15 <= high
    assert free >= 29
    assert held >= 24  # of 30 at 90 % each, fewer are seen once in forty


def test_a_boaster_fails_and_is_told_by_how_much():
    data = split([200] * 80 + [20] * 20, [1] * 100)
    sure = subject(CalibrationError("ece", 5.0), validation=data, shipped=lambda x: 50 * bright(x))
    said = examine(sure)[0]
    assert said.figure == pytest.approx(20.0, abs=0.1)
    assert not said.passed
    assert said.rows[-1].words == "confidence 100.0 %"


# --- JSON ---


def test_results_survive_json():
    for one in examine(subject(Slices("a", min=50.0, max_drop=5.0), Schema("schema"), Leakage("leakage"))):
        assert CheckResult.from_json(one.to_json()) == one
    document = found(Leakage("leakage")).to_json()
    with pytest.raises(TypeError):
        CheckResult.from_json({**document, "passed": 1})
