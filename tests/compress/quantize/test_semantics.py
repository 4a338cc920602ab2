# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of codes, against closed forms and exact fractions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.quantize import semantics
from edge_contract.errors import ModelError

SCALES = st.floats(1e-6, 1e3).map(semantics.float32)


@given(st.floats(-50, 0), st.floats(0, 50), st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_quantization_error_inside_the_range_is_at_most_half_a_step(low, high, shares):
    scale, zero = semantics.scale_and_zero_point(low, high)
    values = torch.tensor([low + share * (high - low) for share in shares])
    back = semantics.dequantize(semantics.quantize(values, scale, zero), scale, zero)
    # float32 division and product may each err by one part in 2**23 of up to 255 steps.
    assert (back - values).abs().max() <= scale * (0.5 + 255 * 2**-22) + 1e-7


@given(st.floats(-1e4, 1e4), st.floats(0, 1e4))
def test_zero_has_a_code_of_its_own(low, width):
    scale, zero = semantics.scale_and_zero_point(low, low + width)
    codes = semantics.quantize(torch.zeros(1), scale, zero)
    assert semantics.LOW <= zero <= semantics.HIGH
    assert semantics.dequantize(codes, scale, zero).item() == 0.0


@given(st.floats(0, 1e4))
def test_range_from_zero_puts_zero_at_the_lowest_code(high):
    # So the saturation of the codes is the ReLU.
    assert semantics.scale_and_zero_point(0.0, high)[1] == semantics.LOW


def test_too_wide_a_range_names_the_tensor():
    with pytest.raises(ModelError, match="tensor 'conv': range 0 to 1e\\+30 is too wide"):
        semantics.scale_and_zero_point(0.0, 1e30, where="tensor 'conv'")


@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=50), st.floats(2**-21, 1.0), st.integers(-128, 127)
)
def test_requantization_is_numpys_float32_product_rounded_half_to_even(sums, multiplier, zero):
    factor = np.float32(multiplier)
    expected = np.clip(np.rint(np.array(sums, np.int32).astype(np.float32) * factor) + zero, -128, 127)
    found = semantics.requantize(torch.tensor(sums, dtype=torch.int32), torch.tensor(float(factor)), zero)
    assert found.tolist() == expected.tolist()


@given(st.lists(SCALES, min_size=2, max_size=8), st.integers(0, 2**32 - 1))
@settings(max_examples=200)
def test_additions_on_tie_free_scales_stay_away_from_every_tie(scales, seed):
    scales = [max(scale, max(scales) / 512) for scale in scales]
    chosen = semantics.tie_free_multiples(scales)
    assert all(after >= before * (1 - 1e-6) for before, after in zip(scales, chosen, strict=True))
    generator = np.random.default_rng(seed)
    a, b = generator.integers(-255, 256, (2, 500))
    steps = (a * chosen[0] + b * chosen[1]) / chosen[-1]
    near = steps[np.abs(steps) < 300]
    distance = np.abs(near - np.floor(near) - 0.5)
    # 1 / (2 × 513), less what float32 scales lose; XNNPACK errs by 2.5e-4 × max(1, ratio) of a step.
    ratio = max(1.0, max(chosen[:2]) / chosen[-1])
    assert distance.min(initial=1.0) > max(9.0e-4, 4.9e-4 * min(ratio, 1.9))


def test_scales_of_like_size_grow_by_three_percent_at_most():
    generator = np.random.default_rng(0)
    for _ in range(200):
        scales = generator.uniform(1.0, 7.0, 5).tolist()
        chosen = semantics.tie_free_multiples(scales)
        assert all(after / before < 1 + 2 / 64 + 1e-6 for before, after in zip(scales, chosen, strict=True))


def test_scales_that_are_tie_free_already_stay():
    chosen = semantics.tie_free_multiples([0.013, 0.02, 0.031])
    assert semantics.tie_free_multiples(chosen) == pytest.approx(chosen, rel=0.02)


@given(SCALES, st.floats(0.05, 1.2), st.integers(1, 400))
def test_a_mean_on_a_tie_free_scale_stays_away_from_every_tie(source, share, count):
    target = semantics.tie_free_ratio(source, source * share, count)
    assert source * share * (1 - 1e-6) <= target <= source * share * (1 + 2 / 127) + source * 2 / count
    sums = np.arange(-255 * count, 255 * count + 1, max(1, count // 7))
    steps = sums * (source / (count * target))
    near = steps[np.abs(steps) < 260]
    q = count * target / source
    assert np.abs(near - np.floor(near) - 0.5).min() > 0.4 / (2 * max(q, 127) * 2)


@given(st.floats(1e-4, 0.49))
def test_fixed_point_multiplier_is_one_over_an_even_number_and_a_hair(multiplier):
    chosen = semantics.fixed_point_multiplier(multiplier)
    assert multiplier <= chosen <= multiplier * 1.03 * (1 + 1e-6)
    if chosen != multiplier:
        q = round(1 / chosen)
        assert q % 2 == 0
        assert q & (q - 1)  # no power of two
        assert 0 < chosen * q - 1 < 2**-21


@given(st.floats(1e-3, 0.02))
@settings(max_examples=60)
def test_two_roundings_and_one_agree_on_positive_sums_with_that_multiplier(multiplier):
    """The oracle is TFLite's fixed-point product in exact integers: 31-bit multiplier, then a rounding shift."""
    chosen = semantics.fixed_point_multiplier(multiplier)
    if chosen == multiplier:
        return
    mantissa, exponent = math.frexp(chosen)
    quantized, shift = round(mantissa * 2**31), -exponent
    factor = semantics.multipliers(1.0, [chosen], 1.0)
    sums = np.arange(int(200 / chosen))
    high = (sums * quantized + (1 << 30)) >> 31  # rounded to a multiple of 2**-shift
    twice = (high + (1 << (shift - 1))) >> shift
    once = semantics.requantize(torch.from_numpy(sums), factor, -128).numpy() + 128
    assert (twice == once).all(), (chosen, sums[twice != once][:5])


def test_two_roundings_disagree_without_that_choice():
    # The reason for the choice: 0.00301 as it is moves some positive sums up by one.
    mantissa, exponent = math.frexp(0.00301)
    sums = np.arange(40_000)
    high = (sums * round(mantissa * 2**31) + (1 << 30)) >> 31
    twice = (high + (1 << (-exponent - 1))) >> -exponent
    assert ((twice - np.rint(sums * 0.00301)) == 1).sum() > 20
