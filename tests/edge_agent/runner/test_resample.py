# SPDX-License-Identifier: Apache-2.0
"""Resizing: to the bit against Pillow, within rounding against torch, against arithmetic where neither has it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_agent.runner.resample import resize
from edge_contract.preprocess import METHODS

ROOT = Path(__file__).resolve().parents[3]
PILLOW = {"bicubic": Image.Resampling.BICUBIC, "bilinear-antialias": Image.Resampling.BILINEAR}
sides = st.integers(1, 40)


def picture(height, width, channels=3, seed=0):
    """Noise, of which one half is black and white: what overshoots a byte most."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (height, width, channels)).astype(np.uint8)
    raw[: height // 2] = (raw[: height // 2] > 128) * 255
    return raw


def by_pillow(raw, *sizes, method):
    """Resize once to each (height, width)."""
    image = Image.fromarray(raw if raw.shape[2] == 3 else raw[..., 0])
    for height, width in sizes:
        image = image.resize((width, height), PILLOW[method])
    return np.asarray(image).reshape(*sizes[-1], -1)


@settings(max_examples=80)
@given(sides, sides, sides, sides, st.sampled_from([1, 3]), st.sampled_from(sorted(PILLOW)))
def test_antialiased_bytes_are_pillow_s_to_the_bit(h, w, height, width, channels, method):
    raw = picture(h, w, channels, seed=h * w)
    # Pass by pass: from 13.0 on Pillow may begin with the height, where that saves time, and rounds in another order.
    expected = by_pillow(raw, (h, width), (height, width), method=method)
    assert (resize(raw[None], height, width, method)[0] == expected).all()


@pytest.mark.parametrize("method", sorted(PILLOW))
@pytest.mark.parametrize(("old", "new"), [((448, 448), (224, 224)), ((300, 401), (96, 96)), ((50, 60), (224, 192))])
def test_photos_of_usual_sizes_are_pillow_s_too(method, old, new):
    raw = picture(*old)
    assert (resize(raw[None], *new, method)[0] == by_pillow(raw, new, method=method)).all()


@pytest.mark.parametrize(("method", "mode"), [("bicubic", "bicubic"), ("bilinear-antialias", "bilinear")])
def test_antialiased_floats_are_those_of_torch(method, mode):
    import torch
    from torch.nn.functional import interpolate

    raw = picture(37, 53).astype(np.float32)
    planes = torch.from_numpy(raw.transpose(2, 0, 1)[None].astype(np.float64))
    for size in ((20, 20), (37, 25), (60, 90)):
        expected = interpolate(planes, size=size, mode=mode, align_corners=False, antialias=True)[0]
        found = resize(raw[None], *size, method)[0]
        # values to 255 over two passes of up to 11 float32 terms each
        np.testing.assert_allclose(found, expected.numpy().transpose(1, 2, 0), atol=3e-4)


def by_area(line, size):
    """The mean of each interval [i, i + 1) × old / size, by a sum over a fine grid that both sizes divide."""
    fine = np.repeat(line, size)  # each source pixel in ``size`` parts; an output pixel is ``len(line)`` of them
    return fine.reshape(size, len(line)).mean(axis=1)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=30), st.integers(1, 30))
def test_area_is_the_mean_of_what_a_pixel_covers(line, size):
    raw = np.array(line, np.uint8)[None, None, :, None]
    found = resize(raw, 1, size, "area")[0, 0, :, 0]
    np.testing.assert_allclose(found, by_area(np.array(line, float), size), atol=1e-3)


@given(sides, sides)
def test_nearest_takes_the_pixel_under_the_centre(old, size):
    raw = np.arange(old, dtype=np.uint8)[None, None, :, None]
    found = resize(raw, 1, size, "nearest")
    assert found.dtype == np.uint8
    # centre (i + 0.5) × old / size lies in [p, p + 1): in integers, so that no quotient is rounded
    for i, p in enumerate(found[0, 0, :, 0].tolist()):
        assert 2 * size * p <= (2 * i + 1) * old < 2 * size * (p + 1)


@given(st.sampled_from(METHODS), sides, sides, st.sampled_from([np.uint8, np.float32, np.int16]))
def test_a_size_that_already_fits_is_left_to_the_bit(method, height, width, dtype):
    raw = picture(height, width).astype(dtype)
    assert (resize(raw[None], height, width, method)[0] == raw).all()


@given(st.sampled_from(METHODS), sides, sides, sides, sides, st.integers(0, 255))
def test_one_colour_stays_that_colour(method, h, w, height, width, value):
    found = resize(np.full((1, h, w, 1), value, np.uint8), height, width, method)
    assert found.shape == (1, height, width, 1)
    np.testing.assert_allclose(found, value, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_an_image_gives_the_same_bits_alone_and_in_a_batch(method):
    batch = np.stack([picture(21, 33, seed=i) for i in range(3)])
    whole = resize(batch, 10, 40, method)
    for one, expected in zip(batch, whole, strict=True):
        assert resize(one[None], 10, 40, method)[0].tobytes() == expected.tobytes()


def test_bicubic_overshoots_floats_and_clips_bytes():
    edge = np.array([0, 0, 0, 0, 255, 255, 255, 255])[None, None, :, None]
    assert resize(edge.astype(np.float32), 1, 16, "bicubic").max() > 255
    assert resize(edge.astype(np.uint8), 1, 16, "bicubic").max() == 255


BITS = """
import hashlib, numpy as np
from edge_agent.runner.preprocess import apply
from edge_contract.preprocess import FITS, METHODS, Preprocess
from edge_contract.series import Series
raw = (np.arange(57 * 43 * 3, dtype=np.int64) ** 2 % 251).astype(np.uint8).reshape(57, 43, 3)
found = hashlib.sha256()
for method in METHODS:
    for fit in FITS:
        p = Preprocess("rgb", (24, 31), (22, 28), 1 / 255, (0.5,), (0.25,), method, fit, (0.9, 0.8), (32, 32), 114.0)
        found.update(apply(p, raw).tobytes())
found.update(apply(Series(3, 57, 57, normalise="window"), raw[:, 0]).tobytes())
print(found.hexdigest())
"""
PINNED = "ec5c702cc648ca635df912935b5c4f7c1af24972ecbd149dc608d8caecdcef5c"


def test_bits_of_every_method_are_pinned_for_every_numpy_and_cpu(legacy):
    for python in (sys.executable, legacy):
        found = subprocess.run([python, "-c", BITS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert found.strip() == PINNED, python
