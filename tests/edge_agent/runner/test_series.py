# SPDX-License-Identifier: Apache-2.0
"""Windows of sensors: cut, scaled by numbers that travel along or by themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.runner.preprocess import apply, apply_batch, channels, cut, is_single
from edge_agent.runner.tensors import Encoder, encode
from edge_contract.artefact import TensorSpec
from edge_contract.errors import DataError
from edge_contract.series import Series


def recording(length=500, sensors=3, seed=0):
    """Slow walks of very different sizes."""
    steps = np.random.default_rng(seed).normal(0, 1, (length, sensors))
    return (steps.cumsum(axis=0) * np.array([1.0, 1e-3, 1e3])[:sensors]).astype(np.float32)


def test_given_numbers_are_per_channel():
    p = Series(3, 4, 4, scale=2.0, mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0))
    raw = np.arange(12).reshape(4, 3)
    assert (apply(p, raw) == (raw * 2.0 - [1, 2, 3]) / [1, 2, 4]).all()
    assert channels(p) == 3


def test_a_window_s_own_numbers_make_it_standard():
    p = Series(3, 100, 50, normalise="window")
    windows = cut(p, recording())
    assert windows.shape == (9, 100, 3)
    found = apply_batch(p, windows)
    np.testing.assert_allclose(found.mean(axis=1), 0.0, atol=1e-6)
    # SMALLEST keeps the small sensor's deviation a little below 1
    np.testing.assert_allclose(found.std(axis=1), 1.0, atol=2e-3)


def test_a_sensor_that_stands_still_gives_zeros():
    p = Series(2, 10, 10, normalise="window")
    raw = np.stack([np.full(10, 0.1), np.arange(10.0)], axis=1)
    found = apply(p, raw)
    np.testing.assert_allclose(found[:, 0], 0.0, atol=1e-6)
    assert found[:, 1].std() > 0.99


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 100))
def test_windows_are_where_their_hop_says(length, hop, extra):
    raw = np.arange(length + extra)[:, None]
    windows = cut(Series(1, length, hop), raw)
    assert len(windows) == 1 + extra // hop
    assert (windows[:, 0, 0] == np.arange(len(windows)) * hop).all()
    assert (np.diff(windows[..., 0], axis=1) == 1).all()


def test_one_channel_needs_no_last_axis():
    p = Series(1, 5, 5)
    line = np.arange(5.0)
    assert (apply(p, line) == apply(p, line[:, None])).all()
    assert is_single(p, line[:, None])
    assert not is_single(p, line[None, :, None])


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (np.zeros((9, 3)), r"a window of shape \[9, 3\], the model wants \[10, 3\]; cut the recording"),
        (np.zeros((10, 2)), r"a window of shape \[10, 2\]"),
        (np.zeros((10, 3), complex), "a window of type complex128"),
    ],
)
def test_what_is_no_window_is_refused(raw, words):
    with pytest.raises(DataError, match=words):
        apply(Series(3, 10, 10), raw)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 10, 3), "NWC"),
        ((1, 3, 10), "NCW"),
        ((1, 1, 10, 3), "NHWC"),
        ((1, 10, 1, 3), "NHWC"),
        ((1, 3, 1, 10), "NCHW"),
    ],
)
def test_a_window_reaches_the_artefact_in_its_layout(shape, layout):
    p, raw = Series(3, 10, 10), recording(10)
    spec = TensorSpec("x", "input", shape, "float32", layout)
    found = Encoder(p, spec)(raw)
    assert found.shape == shape
    planar = layout in ("NCW", "NCHW")
    back = found.reshape(3, 10).T if planar else found.reshape(10, 3)
    assert (back == raw).all()


def test_an_artefact_of_another_shape_is_refused():
    spec = TensorSpec("x", "input", (1, 3, 10), "float32", "NWC")
    with pytest.raises(DataError, match=r"an input of shape \[10, 3\], the artefact wants \[3, 10\] \(NWC\)"):
        encode(spec, np.zeros((1, 10, 3), np.float32))
