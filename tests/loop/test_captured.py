# SPDX-License-Identifier: Apache-2.0
"""Captured sets that must not be learned from, and one that may."""

from dataclasses import replace

import numpy as np
import pytest

from edge_contract.counts import BINS, COMPONENTS, EMBEDDING_UNIT, Counters
from edge_contract.errors import DataError, ProfileError
from edge_contract.profile import ReferenceProfile
from export.bundle.reference import build_profile
from strop.loop import captured, likeness
from strop.loop.captured import examine
from strop.loop.present import Present, open_present
from tests.support import heal_task
from tests.support.heal_task import shipped, task  # noqa: F401  # fixtures

MINIMUM = 100


@pytest.fixture(scope="session")
def present(shipped):  # noqa: F811
    """The shipped student and its teacher."""
    return open_present(shipped)


class Recorded:
    """Answers one input after the other."""

    def __init__(self, present, x):
        self.rows = iter(zip(*present.answer(x), strict=True))

    def infer(self, _raw):
        logits, embedding = next(self.rows)
        return type("Answer", (), {"logits": logits, "embedding": embedding})


@pytest.fixture(scope="session")
def profile(present, task):  # noqa: F811
    """Of the shipped student on its own domain, as in a bundle."""
    split = task.bars(400, 40)
    return build_profile(Recorded(present, split.x), split.x, split.y, names=("row", "column", "slope"))


@pytest.fixture(scope="session")
def drifted(present, profile, task):  # noqa: F811
    """What two windows of 200 counted while the second domain was before the camera."""
    return present.count(task.dim(task.bars(400, 41), 7).x, profile)


@pytest.fixture
def look(tmp_path, present, profile, drifted):
    """Writes inputs as a campaign leaves them, and examines them with all that is known."""

    def call(x, devices=("pi-1", "pi-2", "pi-3"), why="drifted", **words):
        path = heal_task.export(tmp_path / "c.npz", x, devices, why)
        words = {"present": present, "drifted": drifted, "profile": profile, "minimum": MINIMUM, **words}
        return examine(path, words.pop("profile"), **words)

    return call


@pytest.fixture(scope="session")
def good(task):  # noqa: F811
    """Inputs of the second domain that no window counted."""
    return task.dim(task.bars(240, 50), 8).x


def test_what_drifted_is_accepted(look, good):
    found = look(good)
    assert found.samples == 240
    assert found.distinct > 200
    assert found.devices == {"pi-1": 80, "pi-2": 80, "pi-3": 80}
    assert found.counters.n_sampled == 240
    assert found.words[0].endswith("unlike each other, of 3 devices")
    assert found.words[1] == "like the drifted windows"
    assert "the teacher is" in found.words[2]
    assert found.to_json()["samples"] == 240


def test_without_model_or_windows_less_is_asked(look, good):
    assert look(good, present=None).sure is None
    assert look(good, drifted=None).counters is None
    assert look(good, profile=None).sure is not None


def test_tiny_set_is_refused(look, good):
    with pytest.raises(
        DataError, match=r"30 captured inputs, 100 are needed; capture for longer, or from more devices"
    ):
        look(good[:30])


def test_frozen_or_repeated_camera_is_refused(look, good, generator=np.random.default_rng(3)):
    with pytest.raises(DataError, match=r"all 240 inputs are alike; look at the camera: it is covered, or frozen"):
        look(np.repeat(good[:1], 240, axis=0))
    noisy = np.repeat(good[:1], 240, axis=0).astype(int) + generator.integers(-4, 5, good.shape)
    with pytest.raises(DataError, match="all 240 inputs are alike"):
        look(noisy.clip(0, 255).astype(np.uint8))
    few = good[np.arange(240) % 60]
    with pytest.raises(DataError, match=r"only \d\d of 240 inputs are unlike each other, \d+ are like one of them"):
        look(few, minimum=20)


def test_another_shape_or_type_is_refused(look, good):
    with pytest.raises(
        DataError, match=r"inputs uint8 \[10, 12\], the model's data are uint8 \[12, 12\]; capture from"
    ):
        look(good[:, :10])
    with pytest.raises(DataError, match=r"inputs float32 \[12, 12\], the model's data are uint8"):
        look(good.astype(np.float32))


def test_sensors_that_fail_are_refused(look):
    x = np.random.default_rng(1).normal(size=(200, 50, 6)).astype(np.float32)
    assert look(x, present=None).distinct > 100
    x[[3, 70], 4, 2] = np.nan
    with pytest.raises(DataError, match="2 inputs hold NaN or Inf; look at the sensor"):
        look(x, present=None)
    with pytest.raises(DataError, match="inputs of type bool"):
        look(x > 0, present=None)


def test_one_device_may_not_speak_for_many(look, good):
    loud = ("pi-1",) * 9 + ("pi-2",)
    with pytest.raises(
        DataError, match=r"216 of 240 inputs are of one device, 'pi-1', of 10 that were asked; let others"
    ):
        look(good, devices=loud, cohort=10)
    assert look(good, devices=loud).devices["pi-2"] == 24  # of two, one may be the only drifted one


POISON = {
    "noise": lambda t, rng: rng.integers(0, 255, (240, 12, 12)).astype(np.uint8),
    "one class": lambda t, rng: (lambda s: t.dim(s, 9).x[s.y == 0])(t.bars(900, 51)),
    "half of it noise": lambda t, rng: np.concatenate(
        [t.dim(t.bars(140, 52), 3).x, rng.integers(0, 255, (140, 12, 12)).astype(np.uint8)]
    ),
    "bright": lambda t, rng: (t.dim(t.bars(240, 53), 4).x // 2 + 127).astype(np.uint8),
}


@pytest.mark.parametrize("name", POISON)
def test_poisoned_set_is_refused(look, task, name):  # noqa: F811
    x = POISON[name](task, np.random.default_rng(4))
    with pytest.raises(
        DataError, match=r"the captured inputs are not what drifted \(.*effect .*they may be poisoned; look"
    ):
        look(x)


def test_set_that_never_drifted_is_refused_as_such(look, task):  # noqa: F811
    with pytest.raises(DataError, match=r"not what drifted .*: they look as the reference does, without any drift"):
        look(task.bars(240, 54).x)


def test_inputs_that_were_chosen_by_their_answer_are_compared_by_their_looks_alone(
    look, present, profile, drifted, good
):
    """The surest two thirds are no random sample of the drift; their pixels are."""
    logits, _ = present.answer(good)
    unsure = good[np.argsort(np.abs(logits).max(1))[:140]]
    evidence = likeness.two_sample(present.count(unsure, profile), drifted)
    assert set(evidence) - {"input"}
    assert look(unsure, why="low confidence").samples == 140
    only = likeness.two_sample(present.count(unsure, profile), drifted, inputs_only=True)
    assert set(only) <= {"input"}


def test_teacher_that_does_not_know_is_asked_nothing(look, good, present):
    unsure = replace(present, sure=lambda x: np.full(len(x), 0.5), usual=0.9)
    with pytest.raises(
        DataError, match=r"the teacher is 50 % sure of the captured inputs, 90 % of its old data: it does"
    ):
        look(good, present=unsure)
    assert look(good, present=replace(unsure, usual=0.6)).sure == 0.5


def test_profile_of_another_model_is_refused(look, good):
    with pytest.raises(ProfileError):
        look(good, profile=ReferenceProfile.blank(("a", "b")))


def test_groups_are_told_by_looks():
    sketches = np.array([[0.0, 0.5], [0.01, 0.52], [0.0, 0.6], [0.02, 0.48]])
    assert captured._groups(sketches) == [3, 1]
    x = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8)
    found = captured._sketches(x)
    assert found.shape == (2, 36)
    assert found[0, 0] == pytest.approx(np.mean([0, 1, 8, 9]) / 255)
    assert found[1, 35] == pytest.approx(127 / 255)
    assert captured._sketches(np.zeros((3, 1), np.float32)).shape == (3, 1)


def counted(n, mean, spread, bins):
    """Counters of n samples: one embedding component of a mean and a spread, and a histogram of brightness."""
    square = round(n * (spread**2 + mean**2) * EMBEDDING_UNIT)
    first = (0,) * (COMPONENTS - 1)
    return replace(
        Counters.zero(2),
        n_infer=n,
        n_sampled=n,
        embedding_sum=(round(n * mean * EMBEDDING_UNIT), *first),
        embedding_squares=(square, *first),
        brightness=(*bins, *[0] * (BINS - len(bins))),
    )


def test_embedding_is_compared_as_welch_does():
    """t² = 0.5² / (1/100 + 4/400) = 12.5 with one degree of freedom, and eight components are looked at."""
    found = likeness.two_sample(counted(100, 0.5, 1.0, []), counted(400, 0.0, 2.0, []))
    assert set(found) == {"embedding"}
    from scipy import stats

    assert found["embedding"].p == pytest.approx(stats.chi2.sf(12.5, 1), rel=1e-2)
    assert found["embedding"].effect == pytest.approx(0.25 / 2.5 - (1 / 100 + 1 / 400), rel=1e-2)


def test_histogram_that_lies_in_one_bin_hides_nothing():
    """Joined by what the other expects, all would lie in one bin; so both ways are tried."""
    spread, narrow = counted(200, 0.0, 1.0, [50, 50, 50, 50]), counted(200, 0.0, 1.0, [0, 0, 200, 0])
    for pair in ((spread, narrow), (narrow, spread)):
        assert likeness.strangers(likeness.two_sample(*pair)).keys() == {"input"}
    assert not likeness.strangers(likeness.two_sample(spread, spread))


def test_present_model_answers_as_the_shipped_file(present, shipped, task):  # noqa: F811
    from compress import compressed, recipe, sources
    from compress.quantize import integer

    split = task.bars(20, 60)
    logits, embedding = present.answer(split.x)
    x = sources.tensors(recipe.load(shipped.parent / "bars.toml"), split).x
    assert np.array_equal(logits, integer.predict(compressed.load(shipped).plan, x))
    assert embedding.shape[0] == 20
    assert isinstance(present, Present)
    assert 0.5 < present.usual <= 1.0
