# SPDX-License-Identifier: Apache-2.0
"""The formulas on numbers that can be checked by hand, and on the degenerate ones."""

import json
import math

import numpy as np
import pytest
from scipy import special, stats

from edge_contract import canonical
from edge_contract.errors import DataError, ParityError
from export.parity.fidelity import BETWEEN_INT8, FLOAT, INT8, Share, compare, is_constant


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 3, (500, 10)).astype(np.float32)


def test_formulas_agree_with_their_definitions(logits):
    noisy = (logits + np.random.default_rng(1).normal(0, 0.3, logits.shape)).astype(np.float32)
    found, r, a = compare(logits, noisy), logits.astype(np.float64), noisy.astype(np.float64)
    assert found.relative_error == pytest.approx(np.sqrt(((a - r) ** 2).sum() / (r**2).sum()), rel=1e-12)
    assert found.sqnr_db == pytest.approx(10 * np.log10((r**2).sum() / ((a - r) ** 2).sum()), abs=1e-9)
    assert found.max_abs == np.abs(a - r).max()
    assert found.explained == pytest.approx(1 - ((a - r) ** 2).sum() / ((r - r.mean(0)) ** 2).sum(), abs=1e-12)
    assert found.cosine == pytest.approx((r * a).sum() / np.linalg.norm(r) / np.linalg.norm(a), abs=1e-12)
    by_scipy = special.rel_entr(special.softmax(r, 1), special.softmax(a, 1)).sum(1).mean()
    assert found.kl == pytest.approx(by_scipy, rel=1e-9)
    assert found.same_class.count == (r.argmax(1) == a.argmax(1)).sum()
    by_scipy = stats.binomtest(found.same_class.count, 500).proportion_ci(0.95, "wilson")
    assert found.same_class.interval == pytest.approx((by_scipy.low, by_scipy.high), abs=1e-12)
    assert (found.samples, found.values) == (500, 5000)


def test_equal_answers_are_perfect_and_have_a_canonical_form(logits):
    found = compare(logits, logits)
    assert (found.relative_error, found.sqnr_db, found.max_abs, found.kl) == (0.0, math.inf, 0.0, 0.0)
    assert found.explained == 1.0
    document = canonical.loads(canonical.dumps(found.to_json()), where="x")
    assert document["sqnr_db"] is None  # an infinity has no JSON form
    assert document["same_class"]["share"] == (1.0).hex()


def test_zero_reference_has_no_ratio_but_never_divides_by_zero():
    zeros, ones = np.zeros((3, 2)), np.ones((3, 2))
    assert compare(zeros, zeros).relative_error == 0.0
    found = compare(zeros, ones)
    assert (found.relative_error, found.sqnr_db, found.cosine, found.explained) == (math.inf, -math.inf, None, None)
    assert INT8.broken(found) == "relative error inf, allowed 0.3"
    assert json.loads(json.dumps(found.to_json()))["relative_error"] is None
    assert compare(ones, zeros).relative_error == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_names_its_input(logits, bad):
    broken = logits.copy()
    broken[[7, 9], 3] = bad
    with pytest.raises(ParityError, match=r"^logits: 2 of 5000 numbers are NaN or infinite, first for input 7; do not"):
        compare(logits, broken, where="logits")
    with pytest.raises(DataError, match=r"^logits: the reference holds NaN or an infinity for input 7"):
        compare(broken, logits, where="logits")


@pytest.mark.parametrize("shapes", [((3, 2), (3, 4)), ((3, 2), (2, 2)), ((0, 2), (0, 2))])
def test_answers_that_cannot_be_compared_are_refused(shapes):
    with pytest.raises(DataError, match="cannot be compared with"):
        compare(np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_large_logits_do_not_overflow():
    rows = np.array([[1e4, 0.0], [0.0, 1e4]])
    assert compare(rows, rows).kl == 0.0
    assert compare(rows, rows[::-1]).kl == pytest.approx(1e4)


def test_one_column_and_boxes_are_no_classes(logits):
    assert compare(logits[:, :1], logits[:, :1]).same_class is None
    assert compare(logits, logits, classes=False).kl is None
    maps = compare(logits.reshape(50, 10, 10), logits.reshape(50, 10, 10), classes=False)
    assert maps.values == 5000


def test_labels_give_both_accuracies_and_the_paired_interval(logits):
    labels = logits.argmax(1).copy()
    labels[:50] = (labels[:50] + 1) % 10  # the reference is right on 450
    wrong = logits.copy()
    wrong[100:140] = -wrong[100:140]  # the answer on 40 fewer
    found = compare(logits, wrong, labels)
    assert (found.reference_accuracy.correct, found.accuracy.correct) == (450, 410)
    assert found.change.points == pytest.approx(-8.0)
    assert found.change.low < -8.0 < found.change.high < -5.0
    assert found.to_json()["change"]["points"] == found.change.points


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 2, 9], [0, -1, 1, 1]])
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(DataError, match=r"^labels: .* do not fit outputs"):
        compare(np.eye(4), np.eye(4), np.array(labels))


def test_garbage_that_keeps_every_class_is_refused(logits):
    """The reason for this module: top-1 sees nothing here."""
    doubled = logits * 2.5
    found = compare(logits, doubled)
    assert found.same_class == Share(500, 500)
    assert INT8.broken(found) == "relative error 1.5, allowed 0.3"


def test_a_constant_far_from_zero_hides_in_the_relative_error_but_explains_nothing(logits):
    far = logits + 100
    constant = np.broadcast_to(far.mean(axis=0), far.shape)
    found = compare(far, constant)
    assert found.relative_error < 0.04
    assert found.explained == pytest.approx(0.0, abs=1e-6)
    assert INT8.broken(found).startswith("explains ")


def test_accuracy_alone_can_break_a_limit(logits):
    """All logits hardly move, but the largest two of many inputs change places."""
    near = logits.copy()
    order = np.argsort(near, axis=1)
    first, second = order[:150, -1], order[:150, -2]
    rows = np.arange(150)
    near[rows, first], near[rows, second] = near[rows, second].copy(), near[rows, first].copy()
    found = compare(logits, near, logits.argmax(1))
    assert found.relative_error < 0.3
    assert INT8.broken(found).startswith("accuracy changes by -30.00 points")


def test_limits_leave_rounding_alone():
    rows = np.array([[1e-9, 0.0], [0.0, 0.0]])
    assert FLOAT.broken(compare(rows, np.zeros((2, 2)))) == ""  # both are zero, one of them rounded
    assert BETWEEN_INT8.broken(compare(rows, np.zeros((2, 2)))) != ""


def test_constant_needs_two_rows():
    assert not is_constant(np.zeros((1, 3)))
    assert not is_constant(np.zeros((0, 3)))
    assert not is_constant(np.array([[np.nan], [np.nan]]))
    assert is_constant(np.array([[1, 2], [1, 2]], np.int16))
