# SPDX-License-Identifier: Apache-2.0
"""Least squares without negative answers, against SciPy's, and by the conditions that any solution keeps."""

import numpy as np
import pytest
from scipy import optimize

from benchmarks.predict.nnls import nnls


@pytest.mark.parametrize("seed", range(8))
def test_answer_is_scipys(seed):
    draw = np.random.default_rng(seed)
    a, b = draw.random((30, 12)) * 10.0 ** draw.integers(-3, 4, 12), draw.normal(size=30)
    found, (wanted, residual) = nnls(a, b), optimize.nnls(a, b)
    assert np.linalg.norm(a @ found - b) == pytest.approx(residual, rel=1e-6)
    sizes = np.abs(a).max(0)
    assert found * sizes == pytest.approx(wanted * sizes, rel=1e-4, abs=1e-4)


def test_answer_keeps_the_conditions_of_kuhn_and_tucker():
    draw = np.random.default_rng(3)
    a, b = draw.normal(size=(40, 15)), draw.normal(size=40)
    x = nnls(a, b)
    gradient = a.T @ (a @ x - b)
    assert (x >= 0).all() and (gradient >= -1e-7).all() and abs(x @ gradient) < 1e-7


def test_columns_of_zeros_and_twins_give_no_trouble():
    a = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0], [3.0, 3.0, 0.0]])
    x = nnls(a, np.array([2.0, 4.0, 6.0]))
    assert x[0] + x[1] == pytest.approx(2.0) and x[2] == 0
    assert nnls(np.zeros((3, 2)), np.ones(3)).tolist() == [0.0, 0.0]
