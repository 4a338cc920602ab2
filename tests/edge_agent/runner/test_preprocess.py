# SPDX-License-Identifier: Apache-2.0
"""Preprocessing: against torch where it has the same operation, against arithmetic elsewhere, and bit by bit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_agent.runner.postprocess import decide, softmax
from edge_agent.runner.preprocess import apply, apply_batch
from edge_contract.errors import DataError
from edge_contract.preprocess import Preprocess

ROOT = Path(__file__).resolve().parents[3]


def picture(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("size", [(28, 28), (5, 40), (64, 7), (31, 17)])
def test_resize_is_the_bilinear_one_of_torch(size):
    import torch
    from torch.nn.functional import interpolate

    raw = picture(31, 17, 3)
    found = apply(Preprocess(colour="rgb", resize=size), raw)
    planes = torch.from_numpy(raw.transpose(2, 0, 1)[None].astype(np.float64))
    expected = interpolate(planes, size=size, mode="bilinear", align_corners=False, antialias=False)[0]
    # double, because torch's coordinates in float32 are off by 5e-4; ours round values up to 255 to float32
    np.testing.assert_allclose(found, expected.numpy().transpose(1, 2, 0), atol=1e-4)


def test_size_that_already_fits_is_left_to_the_bit():
    raw = picture(9, 11)
    found = apply(Preprocess(resize=(9, 11)), raw)
    assert found.dtype == np.float32
    assert (found[..., 0] == raw).all()


def test_gray_of_a_colour_image_is_bt_601():
    raw = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [100, 100, 100]]], np.uint8)
    found = apply(Preprocess(), raw)[0, :, 0]
    np.testing.assert_allclose(found, [76.245, 149.685, 29.07, 100.0], rtol=1e-6)


def test_alpha_is_dropped_and_gray_is_repeated():
    raw = picture(4, 5, 4)
    assert (apply(Preprocess(colour="rgb"), raw) == raw[..., :3]).all()
    gray = picture(4, 5)
    assert (apply(Preprocess(colour="rgb"), gray) == gray[..., None]).all()


def test_crop_is_central_and_comes_after_the_resize():
    raw = np.arange(7 * 9, dtype=np.uint8).reshape(7, 9)
    assert (apply(Preprocess(crop=(3, 3)), raw)[..., 0] == raw[2:5, 3:6]).all()
    whole = apply(Preprocess(resize=(14, 18)), raw)
    assert (apply(Preprocess(resize=(14, 18), crop=(4, 6)), raw) == whole[5:9, 6:12]).all()


def test_scale_then_mean_then_deviation_per_channel():
    raw = picture(3, 3, 3)
    p = Preprocess(colour="rgb", scale=0.5, mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0))
    expected = (raw * 0.5 - np.array([1, 2, 3])) / np.array([2, 4, 8])
    assert (apply(p, raw) == expected).all()  # powers of two: exact


def test_raw_image_is_never_changed():
    raw = picture(4, 4).astype(np.float32)
    before = raw.copy()
    apply(Preprocess(scale=0.1, mean=(1.0,)), raw)
    assert (raw == before).all()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (np.zeros(4, np.uint8), r"an image of shape \[4, 1\]|an image of shape"),
        (np.zeros((4, 4, 2), np.uint8), r"an image of shape \[4, 4, 2\]"),
        (np.zeros((0, 4), np.uint8), r"an image of shape \[0, 4, 1\]"),
        (np.zeros((4, 4), complex), "an image of type complex128"),
        (np.array([["a"]]), "an image of type"),
    ],
)
def test_what_is_no_image_is_refused(raw, words):
    with pytest.raises(DataError, match=words):
        apply(Preprocess(), raw)


def test_crop_larger_than_the_image_is_refused():
    with pytest.raises(DataError, match=r"a crop of 9×9 from an image of 8×8; resize first"):
        apply(Preprocess(crop=(9, 9)), picture(8, 8))


sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), resize=st.none() | sizes, colour=st.sampled_from(["gray", "rgb"]), depth=st.sampled_from([1, 3]))
def test_image_gives_the_same_bits_alone_and_in_a_batch(data, resize, colour, depth):
    raw = data.draw(arrays(np.uint8, (3, 6, 5, depth)))
    p = Preprocess(colour=colour, resize=resize, scale=1 / 255, mean=(0.5,), std=(0.25,))
    batch = apply_batch(p, raw)
    assert batch.shape == (3, *(resize or (6, 5)), 3 if colour == "rgb" else 1)
    for one, expected in zip(raw, batch, strict=True):
        assert apply(p, one).tobytes() == expected.tobytes()


BITS = """
import hashlib, numpy as np
from edge_agent.runner.preprocess import apply
from edge_contract.preprocess import Preprocess
raw = (np.arange(37 * 23 * 3, dtype=np.int64) ** 2 % 251).astype(np.uint8).reshape(37, 23, 3)
p = Preprocess(colour="gray", resize=(28, 28), crop=(24, 20), scale=1 / 255, mean=(0.1307,), std=(0.3081,))
print(hashlib.sha256(apply(p, raw).tobytes()).hexdigest())
"""
PINNED = "63db8bbdbc27eddd9ffb9374bbf4f213737ec035ae890b6c9b5fd0596edd7700"


def test_bits_are_pinned_for_every_numpy_and_cpu(legacy):
    for python in (sys.executable, legacy):
        found = subprocess.run([python, "-c", BITS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert found.strip() == PINNED, python


def test_softmax_keeps_its_head_at_huge_logits():
    share = softmax(np.array([[1e4, 1e4 - np.log(3)], [-1e4, 0.0]]))
    np.testing.assert_allclose(share, [[0.75, 0.25], [0.0, 1.0]], atol=1e-9)


@pytest.mark.parametrize(
    ("postprocess", "expected"), [("softmax", (1, 0.5)), ("none", (1, np.log(2.0))), ("argmax", (1, 1.0))]
)
def test_decision_and_confidence_by_postprocess(postprocess, expected):
    best, confidence = decide(postprocess, np.array([0.0, np.log(2.0), 0.0]))
    assert (best, confidence) == (expected[0], pytest.approx(expected[1]))


def test_first_of_equal_classes_wins():
    assert decide("argmax", np.array([1.0, 2.0, 2.0]))[0] == 1
