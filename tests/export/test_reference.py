# SPDX-License-Identifier: Apache-2.0
"""The reference profile of a real net: complete, small, reproducible, and refused where it would mislead."""

import numpy as np
import pytest

from edge_contract.errors import DataError, ModelError
from edge_contract.profile import MAX_PROFILE_BYTES, ReferenceProfile
from edge_contract.severity import estimators
from export.bundle.reference import build_profile, quantile_edges
from tests.support.digits import Answer, Net, answers, digits, profile


class Told:
    """A model whose answers are given; an input is the number of its answer."""

    labels = ()

    def __init__(self, logits, embedding=None):
        self.logits, self.embedding = logits, embedding

    def infer(self, raw):
        return Answer(self.logits[int(raw)], None if self.embedding is None else self.embedding[int(raw)])


def told(logits, truth, embedding=None):
    return build_profile(Told(logits, embedding), np.arange(len(truth)), truth)


def random_logits(m=400, classes=10, sure=6.0, seed=0):
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, m)
    return np.eye(classes)[truth] * sure + random.normal(size=(m, classes)) * 2, truth


def test_the_profile_knows_the_model_it_was_made_from():
    own, reference = digits(0), profile()
    predicted = np.array([own.net.infer(one).logits.argmax() for one in own.validation])
    accuracy = (predicted == own.validation_labels).mean()
    assert reference.accuracy == pytest.approx(accuracy)
    assert reference.size == 750
    assert reference.counters.classes == tuple(np.bincount(predicted, minlength=10))
    confusion = np.array(reference.confusion).reshape(10, 10)
    assert confusion.trace() / 750 == pytest.approx(accuracy)
    assert confusion.sum(axis=1).tolist() == np.bincount(own.validation_labels, minlength=10).tolist()
    assert len(reference.to_bytes()) < 4096


def test_the_atc_threshold_leaves_the_share_that_is_right():
    found = estimators(profile(), profile().counters)
    assert found["ATC"] == pytest.approx(profile().accuracy, abs=0.02)  # coarse logits: ties at the threshold
    assert found["DoC"] == profile().accuracy
    assert found["CBPE"] == pytest.approx(profile().accuracy, abs=0.01)


def test_bins_hold_equal_shares_of_the_reference():
    for name in ("brightness", "contrast", "sharpness", "energy"):
        counts = getattr(profile().counters, name)
        assert sum(counts) == 750
        assert max(counts) < 2 * 750 / 16


def test_the_same_inputs_give_the_same_bytes():
    own = digits(0)
    again = build_profile(own.net, own.validation, own.validation_labels)
    assert again.to_bytes() == profile().to_bytes()


def test_the_projection_is_white_on_the_reference():
    counters = profile().counters
    assert np.array(counters.embedding_sum) / 750 / 1024 == pytest.approx(
        0, abs=0.05
    )  # clipping at 6 moves it a little
    assert np.array(counters.embedding_squares) / 750 / 1024 == pytest.approx(1, abs=0.15)


def test_a_board_has_no_part_in_the_profile():
    assert sum(profile().counters.latency) == profile().counters.latency_sum_us == 0


def test_without_an_embedding_the_logits_serve():
    own = digits(0)
    bare = Net(own.net.weights, own.net.biases, with_embedding=False)
    reference = build_profile(bare, own.validation, own.validation_labels)
    assert (reference.projection.source, reference.projection.dimension) == ("logits", 10)
    assert reference.projection.components == 8


def test_names_come_from_the_caller_or_the_model_or_are_numbers():
    logits, truth = random_logits()
    model = Told(logits)
    assert build_profile(model, np.arange(400), truth).labels == tuple("0123456789")
    model.labels = tuple("abcdefghij")
    assert build_profile(model, np.arange(400), truth).labels == tuple("abcdefghij")
    assert build_profile(model, np.arange(400), truth, names=tuple("klmnopqrst")).labels[0] == "k"


@pytest.mark.parametrize(("dimension", "components"), [(5, 5), (256, 8), (1280, 8), (2048, 5)])
def test_any_embedding_fits_into_sixteen_kilobytes(dimension, components):
    logits, truth = random_logits()
    embedding = np.random.default_rng(1).normal(size=(400, dimension))
    reference = told(logits, truth, embedding)
    assert reference.projection.components == components
    assert len(reference.to_bytes()) <= MAX_PROFILE_BYTES


def test_two_hundred_classes_fit_too():
    logits, truth = random_logits(m=1200, classes=200)
    reference = told(logits, truth, np.random.default_rng(1).normal(size=(1200, 1280)))
    assert reference.counters.slots == 64
    assert len(reference.own_slots) == 63
    assert len(reference.to_bytes()) <= MAX_PROFILE_BYTES
    assert reference.accuracy == pytest.approx((logits.argmax(axis=1) == truth).mean())


def test_a_model_without_an_error_doubts_only_what_is_less_sure_than_everything_it_saw():
    logits, truth = random_logits(sure=30.0)
    reference = told(logits, truth)
    assert reference.accuracy == 1.0
    assert sum(reference.counters.levels[2:]) == reference.size
    assert list(reference.edges.levels) == sorted(reference.edges.levels)


def test_a_model_that_always_answers_alike_has_a_profile_without_a_projection():
    truth = np.random.default_rng(2).integers(0, 10, 300)
    reference = told(np.tile(np.arange(10.0), (300, 1)), truth, np.ones((300, 16)))
    assert reference.projection.components == 0
    assert reference.projection.source == "none"
    assert ReferenceProfile.from_bytes(reference.to_bytes()) == reference


def test_a_dead_unit_takes_no_part():
    logits, truth = random_logits()
    embedding = np.random.default_rng(3).normal(size=(400, 4))
    embedding[:, 2] = 0.0
    assert told(logits, truth, embedding).projection.components == 3


@pytest.mark.parametrize(
    ("values", "shares", "expected"),
    [
        ([1, 2, 3, 4], [0.5], (2.5,)),
        ([1, 1, 1, 1, 9], [0.2, 0.5, 0.8], (5, 5, 5)),
        ([7, 7, 7], [0.3, 0.6], (6, 6)),
    ],
)
def test_edges_lie_between_values(values, shares, expected):
    assert quantile_edges(np.array(values, dtype=float), shares) == expected


def test_too_little_data_is_refused():
    own = digits(0)
    with pytest.raises(DataError, match="100 inputs and 100 labels; give at least 128"):
        build_profile(own.net, own.validation[:100], own.validation_labels[:100])
    with pytest.raises(DataError, match="750 inputs and 749 labels"):
        build_profile(own.net, own.validation, own.validation_labels[1:])


def test_answers_that_are_no_numbers_are_refused():
    logits, truth = random_logits()
    logits[17, 2] = np.nan
    with pytest.raises(ModelError, match="the logits of sample 17 are not finite"):
        told(logits, truth)


def test_labels_beyond_the_logits_are_refused():
    logits, truth = random_logits()
    with pytest.raises(ModelError, match="10 logits, 10 names, labels up to 10"):
        told(logits, np.where(truth == 3, 10, truth))


def test_the_calibration_error_is_what_the_estimators_miss_on_fresh_data():
    own = digits(0)
    predicted = np.array([a.logits.argmax() for a in answers(0, "test")])
    assert 0.005 < profile().calibration_error < 0.06
    assert (predicted == own.test_labels).mean() == pytest.approx(
        profile().accuracy, abs=profile().calibration_error + 2 * 0.013
    )
