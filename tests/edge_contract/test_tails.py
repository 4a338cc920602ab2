# SPDX-License-Identifier: Apache-2.0
"""Our tails against SciPy's, out to where alarms live."""

import pytest
from scipy import stats

from edge_contract import tails

CLOSE = pytest.approx


@pytest.mark.parametrize("df", [1, 3, 9, 16, 39])
@pytest.mark.parametrize("x", [0.1, 1, 5, 20, 60, 150, 400])
def test_chi_square(x, df):
    assert tails.chi2_sf(x, df) == CLOSE(stats.chi2.sf(x, df), rel=1e-10)


@pytest.mark.parametrize("noncentrality", [0.5, 10, 100, 1000])
@pytest.mark.parametrize(("x", "df"), [(1, 3), (20, 9), (60, 16), (150, 16), (400, 39)])
def test_noncentral_chi_square(x, df, noncentrality):
    # SciPy itself loses relative precision below 1e-12, so there only the size is compared.
    assert tails.noncentral_chi2_sf(x, df, noncentrality) == CLOSE(
        stats.ncx2.sf(x, df, noncentrality), rel=1e-8, abs=1e-12
    )


@pytest.mark.parametrize(("d1", "d2"), [(1, 50), (4, 734), (16, 734), (16, 20000)])
@pytest.mark.parametrize("x", [0.1, 0.5, 1, 2, 4, 8])
def test_f(x, d1, d2):
    assert tails.f_sf(x, d1, d2) == CLOSE(stats.f.sf(x, d1, d2), rel=1e-8)


@pytest.mark.parametrize("tail", [0.5, 0.01, 1e-6, 1e-12, 1e-200])
def test_normal_quantile(tail):
    assert tails.normal_quantile(tail) == CLOSE(stats.norm.isf(tail), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("df", [1, 9, 16, 60])
def test_chi_square_quantile_is_the_inverse(df):
    assert tails.chi2_sf(tails.chi2_quantile(1e-3, df), df) == CLOSE(1e-3, rel=1e-9)


def test_ends_of_the_line():
    assert tails.gamma_sf(2.0, 0.0) == tails.f_sf(0.0, 3, 4) == tails.beta_sf(0.0, 1, 1) == 1.0
    assert tails.beta_sf(1.0, 2, 2) == 0.0
    assert tails.chi2_sf(1e6, 5) < 1e-300
    assert tails.normal_quantile(0.0) == -tails.normal_quantile(1.0) == 38.0
    assert tails.noncentral_chi2_sf(5.0, 3, 0.0) == tails.chi2_sf(5.0, 3)
