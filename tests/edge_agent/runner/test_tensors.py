# SPDX-License-Identifier: Apache-2.0
"""Codes: rounding, clipping, layouts, and that the fast way from a pixel to a code is the slow way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_agent.runner.preprocess import apply
from edge_agent.runner.tensors import Encoder, dequantize, encode, quantize, signed
from edge_contract.errors import DataError
from edge_contract.manifest import TensorSpec
from edge_contract.preprocess import Preprocess


def spec(shape=(1, 4), dtype="int8", layout="NC", scale=0.5, zero=1):
    return TensorSpec("x", "input", shape, dtype, layout, scale, zero)


@pytest.mark.parametrize(
    ("value", "code"),
    [(0.25, 1), (0.75, 3), (-0.25, 1), (1.25, 3), (1e9, 127), (-1e9, -128), (0.0, 1)],
)
def test_half_a_step_goes_to_the_even_neighbour_before_the_zero_point(value, code):
    assert quantize(spec(), np.array([value])).tolist() == [code]


def test_float_tensor_passes_through():
    values = np.array([0.1, -5.0], np.float32)
    assert quantize(spec(dtype="float32"), values) is values
    assert dequantize(spec(dtype="float32"), values).tolist() == values.tolist()


@settings(max_examples=100, deadline=None)
@given(
    scale=st.floats(2**-13, 10.0, width=32),
    zero=st.integers(-128, 127),
    parts=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20),
)
def test_round_trip_is_within_half_a_step_inside_the_range(scale, zero, parts):
    s = spec(scale=scale, zero=zero)
    low, high = scale * (-128 - zero), scale * (127 - zero)
    values = np.array([low + part * (high - low) for part in parts])
    back = dequantize(s, quantize(s, values))
    assert np.abs(back - values).max() <= scale * (0.5 + 1e-4)  # 1e-4: float32 of values up to 255 steps


@given(arrays(np.uint8, 16))
def test_signed_codes_are_the_unsigned_ones_less_128(codes):
    assert (signed(codes).astype(int) == codes.astype(int) - 128).all()
    assert signed(codes.view(np.int8)).tolist() == codes.view(np.int8).tolist()


def test_encode_turns_the_layout():
    values = np.arange(2 * 3 * 4 * 2, dtype=np.float32).reshape(2, 3, 4, 2)
    planar = encode(spec((1, 2, 3, 4), layout="NCHW", scale=1.0, zero=0), values)
    assert planar.shape == (2, 2, 3, 4)
    assert planar.flags.c_contiguous
    assert (planar[1, 1] == values[1, ..., 1]).all()


def test_encode_refuses_another_shape_and_says_both():
    with pytest.raises(DataError, match=r"shape \[3, 4, 2\], the artefact wants \[3, 4, 1\] \(NHWC\); set resize"):
        encode(spec((1, 3, 4, 1), layout="NHWC"), np.zeros((2, 3, 4, 2)))


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    colour=st.sampled_from(["gray", "rgb", "bgr"]),
    planar=st.booleans(),
    dtype=st.sampled_from(["int8", "uint8", "float32"]),
    per_channel=st.booleans(),
    given_depth=st.sampled_from([None, 1, 3, 4]),
    size=st.sampled_from([(5, 6), (7, 4)]),
    fit=st.sampled_from(["none", "resize", "crop"]),
)
def test_looked_up_codes_are_the_computed_ones(data, colour, planar, dtype, per_channel, given_depth, size, fit):
    depth = 1 if colour == "gray" else 3
    raw = data.draw(arrays(np.uint8, size if given_depth is None else (*size, given_depth)))
    count = depth if per_channel else 1
    p = Preprocess(
        colour=colour,
        resize=(5, 6) if fit == "resize" else None,
        crop=(5, 4) if fit == "crop" else None,
        scale=1 / 255,
        mean=tuple(np.linspace(0.1, 0.5, count).tolist()),
        std=tuple(np.linspace(0.2, 0.3, count).tolist()),
    )
    height, width = {"resize": (5, 6), "crop": (5, 4), "none": size}[fit]
    shape = (1, depth, height, width) if planar else (1, height, width, depth)
    s = spec(shape, dtype, "NCHW" if planar else "NHWC", 0.017, -3 if dtype == "int8" else 125)
    found = Encoder(p, s)(raw)
    expected = encode(s, apply(p, raw)[None])
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("zero", [0, -128, -127])
@pytest.mark.parametrize("planar", [True, False])
@pytest.mark.parametrize("colour", ["gray", "rgb", "bgr"])
def test_bytes_that_are_codes_are_copied_from_a_crop_into_one_buffer(zero, planar, colour):
    """zero 0: uint8 codes that are the bytes; -128: shifted by 128; -127: neither, so a table."""
    depth, dtype = (1 if colour == "gray" else 3), ("uint8" if zero == 0 else "int8")
    p = Preprocess(colour=colour, crop=(5, 4), centre=(0.9,))
    s = spec((1, depth, 5, 4) if planar else (1, 5, 4, depth), dtype, "NCHW" if planar else "NHWC", 1.0, zero)
    encoder, rng = Encoder(p, s), np.random.default_rng(1)
    for shape in ((9, 8, 3), (9, 8), (6, 7, 3), (6, 7, 1)):
        raw = rng.integers(0, 256, shape, dtype=np.uint8)
        for view in (raw, raw[::-1], np.asfortranarray(raw)):
            assert encoder(view).tobytes() == encode(s, apply(p, view)[None]).tobytes(), shape


def test_encoder_refuses_an_image_of_another_size():
    with pytest.raises(DataError, match=r"the artefact wants \[5, 6, 1\]"):
        Encoder(Preprocess(), spec((1, 5, 6, 1), layout="NHWC"))(np.zeros((6, 5), np.uint8))
