# SPDX-License-Identifier: Apache-2.0
"""The closed vocabulary of preprocessing: both ways, and nothing is skipped in silence."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import canonical
from edge_contract.audio import Audio
from edge_contract.errors import ManifestError, RecipeError
from edge_contract.preprocess import FITS, KINDS, METHODS, Preprocess, keys, parse
from edge_contract.series import Series

sizes = st.tuples(st.integers(8, 512), st.integers(8, 512))
reals = st.floats(-1e6, 1e6)
nonzero = reals.filter(lambda x: x != 0.0)
shares = st.floats(0.01, 1.0)


@st.composite
def images(draw):
    colour = draw(st.sampled_from(["gray", "rgb", "bgr"]))
    channels = 1 if colour == "gray" else draw(st.sampled_from([1, 3]))
    resize = draw(st.none() | sizes)
    crop = draw(st.none() | st.tuples(st.integers(1, 8), st.integers(1, 8)))
    mean, std = (tuple(draw(st.lists(s, min_size=channels, max_size=channels))) for s in (reals, nonzero))
    found = Preprocess(colour, resize, crop, draw(reals), mean, std)
    found = replace(found, centre=draw(st.just(()) | st.tuples(shares) | st.tuples(shares, shares)))
    if resize is not None:
        found = replace(found, method=draw(st.sampled_from(METHODS)), fit=draw(st.sampled_from(FITS)))
    if draw(st.booleans()):
        found = replace(found, pad=(600, 513), fill=draw(reals))
    return found


@st.composite
def clips(draw):
    rate, length = draw(st.integers(8000, 48000)), draw(st.integers(100, 50_000))
    found = Audio(rate, length, draw(st.integers(1, length)), scale=draw(reals))
    if draw(st.booleans()):
        return found
    frame = draw(st.integers(16, 100))
    found = replace(found, frame=frame, step=draw(st.integers(8, 100)), fft=draw(st.integers(frame, 512)))
    found = replace(found, edges=draw(st.sampled_from(["none", "reflect", "zero"])), power=draw(st.integers(1, 2)))
    found = replace(found, window=draw(st.sampled_from(["hann", "hamming", "none"])))
    if draw(st.booleans()):
        mel = draw(st.sampled_from(["htk", "slaney", "tensorflow"]))
        found = replace(found, bands=draw(st.integers(1, 40)), low_hz=draw(st.floats(0, 100)), high_hz=4000.0, mel=mel)
        found = replace(found, coefficients=draw(st.integers(0, found.bands)))
        found = replace(found, dct=draw(st.sampled_from(["ortho", "htk"])) if found.coefficients else "ortho")
    if draw(st.booleans()):
        found = replace(found, log=draw(st.sampled_from(["natural", "decibel"])), offset=draw(st.floats(1e-12, 1)))
    return replace(found, mean=(0.5,) * found.values)


@st.composite
def windows(draw):
    channels, length = draw(st.integers(1, 12)), draw(st.integers(1, 1000))
    mean, std = (tuple(draw(st.lists(s, min_size=channels, max_size=channels))) for s in (reals, nonzero))
    rate, normalise = draw(st.floats(0, 1e4)), draw(st.sampled_from(["given", "window"]))
    return Series(channels, length, draw(st.integers(1, 2000)), rate, normalise, draw(reals), mean, std)


@given(images() | clips() | windows())
def test_a_description_comes_back_equal_and_with_the_same_bytes(description):
    data = canonical.dumps(description.to_json())
    found = parse(canonical.loads(data))
    assert found == description
    assert canonical.dumps(found.to_json()) == data
    assert set(found.to_json()) <= set(keys(found.to_json().get("kind", "image")))


def test_descriptions_from_before_the_new_keys_keep_their_bytes():
    """What the first release wrote: five keys at most, and bundles are named by the digest of these bytes."""
    old = Preprocess("rgb", (256, 256), (224, 224), 0.5, (1.0, 2.0, 3.0), (2.0,))
    assert json.dumps(old.to_json(), sort_keys=True) == (
        '{"colour": "rgb", "crop": [224, 224], "mean": [1.0, 2.0, 3.0], "resize": [256, 256], '
        '"scale": 0.5, "std": [2.0]}'
    )
    assert json.dumps(Preprocess().to_json(), sort_keys=True) == (
        '{"colour": "gray", "mean": [0.0], "scale": 1.0, "std": [1.0]}'
    )


def test_an_empty_description_changes_nothing():
    found = Preprocess.from_json({})
    assert (found.scale, found.mean, found.std, found.resize, found.crop) == (1.0, (0.0,), (1.0,), None, None)
    assert found == Preprocess() == parse({"kind": "image"})


CLIP = {"kind": "audio", "rate_hz": 16000, "length": 16000}
FRAMES = {**CLIP, "frame": 480, "step": 320}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"letterbox": True}, "recipe.toml [preprocess]: unknown key 'letterbox'"),
        ({"resize": [0, 28]}, "resize: [0, 28] is not [height, width]"),
        ({"resize": 28}, "resize: expected a list, found 28"),
        ({"resize": [28, 20_000]}, "resize: [28, 20000] is above 16384 pixels"),
        ({"std": [1.0, 0.0, 1.0], "colour": "rgb"}, "std: a standard deviation of 0"),
        ({"mean": []}, "mean: 0 values for colour 'gray'"),
        ({"scale": "1/255"}, "scale: expected a number, found '1/255'"),
        ({"centre": 0}, "centre: [0.0] is no share; give one share"),
        ({"centre": [0.5]}, "centre: [0.5] is no share"),
        ({"centre": "half"}, "centre: expected a number, found 'half'"),
        ({"pad": [8, 8], "crop": [9, 8]}, "pad: [8, 8] is smaller than [9, 8]"),
        ({"method": "area"}, "method: nothing is resized; add resize, or leave method out"),
        ({"fit": "cover"}, "fit: nothing is resized"),
        ({"fill": 3.0}, "fill: nothing is filled up"),
        ({"kind": "video"}, "kind: unknown value 'video'; use one of image, audio, series"),
        ({"kind": "audio"}, "field 'length' is missing"),
        ({**CLIP, "step": 3}, "step: there is no 'frame'; add frame, or leave step out"),
        ({**CLIP, "log": "natural"}, "log: there is no 'frame'"),
        ({**CLIP, "frame": 480}, "field 'step' is missing"),
        ({**FRAMES, "fft": 256}, "fft: 256 points for frames of 480 samples"),
        ({**FRAMES, "offset": 1.0}, "offset: there is no 'log'"),
        ({**FRAMES, "log": "natural", "offset": 0.0}, "offset: 0 does not keep the logarithm finite"),
        ({**FRAMES, "bands": 40, "high_hz": 9000.0}, "high_hz: bands from 0 to 9000 Hz at 16000 Hz"),
        ({**FRAMES, "bands": 40, "coefficients": 41}, "coefficients: 41 of 40 bands"),
        ({**FRAMES, "coefficients": 10}, "coefficients: there is no 'bands'"),
        ({**FRAMES, "bands": 40, "mean": [0.0] * 3}, "mean: 3 values for 40 values a frame"),
        ({**FRAMES, "step": 1, "fft": 65536}, "step: 15521 frames of 65536 points; use a longer step"),
        ({**CLIP, "length": 1 << 25}, "length: 33554432 is above 16777216"),
        ({"kind": "series", "channels": 2, "length": 0}, "length: 0 is below 1"),
        ({"kind": "series", "channels": 2, "length": 9, "rate_hz": -1.0}, "rate_hz: -1 is no rate"),
        ({"kind": "series", "channels": 2, "length": 9, "std": [1.0] * 3}, "std: 3 values for 2 channels"),
    ],
)
def test_a_recipe_is_refused_with_its_own_leaf_and_path(document, words):
    with pytest.raises(RecipeError) as caught:
        parse(document, "recipe.toml [preprocess]", RecipeError)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


@given(
    st.sampled_from(KINDS),
    st.dictionaries(
        st.sampled_from(sorted({key for kind in KINDS for key in keys(kind)})),
        st.none() | st.integers(-3, 1 << 40) | reals | st.text(max_size=3) | st.lists(st.integers(0, 9), max_size=3),
        max_size=6,
    ),
)
def test_any_document_gives_a_description_or_one_error(kind, document):
    try:
        found = parse({**document, "kind": kind})
    except ManifestError as error:
        assert "preprocess" in str(error)
    else:
        assert parse(found.to_json()) == found


def test_shape_of_a_clip_follows_its_last_step():
    spectrum = Audio.from_json({**FRAMES, "fft": 512})
    assert (spectrum.frames, spectrum.shape) == (49, (49, 257, 1))
    assert Audio.from_json({**FRAMES, "edges": "reflect"}).frames == 51
    assert Audio.from_json({**FRAMES, "bands": 40}).shape == (49, 40, 1)
    assert Audio.from_json(CLIP).shape == (16000, 1)
