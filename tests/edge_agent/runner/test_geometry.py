# SPDX-License-Identifier: Apache-2.0
"""Crops, frames and their way back: each against indices that were worked out by hand or by another rule."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_agent.runner.geometry import geometry
from edge_agent.runner.preprocess import apply
from edge_contract.errors import DataError
from edge_contract.preprocess import FITS, Preprocess

sides = st.integers(1, 60)
sizes = st.tuples(sides, sides)


def ramp(height, width):
    """Each pixel tells its own place: row × 256 + column, as a float image."""
    return (np.arange(height)[:, None] * 256.0 + np.arange(width)).astype(np.float32)


def test_centre_is_a_square_of_the_shorter_side():
    raw = ramp(100, 160)
    found = apply(Preprocess(centre=(0.875,)), raw)[..., 0]
    assert (found == raw[6:93, 36:123]).all()  # 87 = ⌊0.875 × 100⌋, (100 - 87) // 2 = 6, (160 - 87) // 2 = 36


def test_two_shares_keep_the_aspect():
    raw = ramp(100, 160)
    assert (apply(Preprocess(centre=(0.5, 0.25)), raw)[..., 0] == raw[25:75, 60:100]).all()
    assert apply(Preprocess(centre=(0.001,)), raw).shape == (1, 1, 1)


def test_cover_then_crop_is_torchvision_s_resize_and_centre_crop():
    """Resize(256) gives 256 × ⌊256 × 500 / 375⌋ = 256 × 341; CenterCrop(224) starts at 16 and 58."""
    tall, wide = geometry(Preprocess(resize=(256, 256), fit="cover", crop=(224, 224)), 375, 500)
    assert (tall.resized, wide.resized) == (256, 341)
    assert (-tall.shift, -wide.shift) == (16, 58)
    assert (tall.output, wide.output) == (224, 224)


def test_letterbox_keeps_the_aspect_and_fills_the_rest():
    p = Preprocess(resize=(40, 40), fit="letterbox", fill=114.0, method="nearest", scale=0.5)
    found = apply(p, np.full((20, 80), 200, np.uint8))[..., 0]
    assert (found[:15] == 57).all()
    assert (found[15:25] == 100).all()
    assert (found[25:] == 57).all()


def test_pad_puts_the_odd_pixel_at_the_end():
    found = apply(Preprocess(pad=(4, 5), fill=9.0), np.array([[1, 2]], np.uint8))[..., 0]
    assert found.tolist() == [[9] * 5, [9, 1, 2, 9, 9], [9] * 5, [9] * 5]


def test_pad_does_not_bring_back_what_the_crop_took():
    found = apply(Preprocess(crop=(1, 2), pad=(1, 4), fill=-1.0), np.array([[1, 2, 3, 4]], np.int16))[0, :, 0]
    assert found.tolist() == [-1, 2, 3, -1]


def test_bgr_is_rgb_backwards_with_its_own_mean():
    raw = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    rgb, bgr = (apply(Preprocess(colour, mean=(1.0, 2.0, 3.0)), raw) for colour in ("rgb", "bgr"))
    assert (rgb == raw - np.array([1, 2, 3.0])).all()
    assert (bgr == raw[..., ::-1] - np.array([1, 2, 3.0])).all()
    alpha = np.concatenate([raw, raw[..., :1]], axis=2)
    assert (apply(Preprocess("bgr"), alpha) == raw[..., ::-1]).all()


def test_image_larger_than_its_pad_is_refused():
    with pytest.raises(DataError, match="an image of 4×6, more than pad 5×5; resize or crop first"):
        apply(Preprocess(pad=(5, 5)), ramp(4, 6))


@given(sizes, sizes, st.sampled_from(FITS))
def test_every_fit_gives_the_wanted_size(old, new, fit):
    found = apply(Preprocess(resize=new, fit=fit, method="nearest"), ramp(*old))
    assert found.shape == (*new, 1)
    tall, wide = geometry(Preprocess(resize=new, fit=fit), *old)
    if fit == "cover":
        assert tall.resized >= new[0]
        assert wide.resized >= new[1]
        assert new[0] == tall.resized or new[1] == wide.resized
    if fit == "letterbox":
        assert tall.resized <= new[0]
        assert wide.resized <= new[1]
        assert new[0] == tall.resized or new[1] == wide.resized


@given(sizes, sizes, st.sampled_from(FITS), st.tuples(st.floats(0.2, 1), st.floats(0.2, 1)), st.tuples(sides, sides))
def test_the_way_back_leads_to_the_pixel_that_is_seen(old, new, fit, centre, extra):
    """With ``nearest`` an output pixel shows the raw pixel in which its way back ends."""
    p = Preprocess(resize=new, fit=fit, method="nearest", centre=centre, fill=-1.0)
    p = Preprocess(**{**vars(p), "pad": (new[0] + extra[0], new[1] + extra[1])})
    seen = apply(p, ramp(*old))[..., 0]
    places = np.argwhere(seen >= 0)
    assume(len(places))
    for axis, (side, limit) in enumerate(zip(geometry(p, *old), old, strict=True)):
        factor, shift = side.way_back()
        for place in places[:: max(1, len(places) // 20)]:
            value = int(seen[tuple(place)])
            raw = (value // 256, value % 256)[axis]
            back = factor * (place[axis] + 0.5) / side.output + shift
            assert 0 <= raw < limit
            assert raw - 1e-6 <= back <= raw + 1 + 1e-6
