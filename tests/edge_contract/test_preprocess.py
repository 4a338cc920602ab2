# SPDX-License-Identifier: Apache-2.0
"""The closed vocabulary of preprocessing: both ways, and nothing is skipped in silence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract.errors import RecipeError
from edge_contract.preprocess import Preprocess

sizes = st.tuples(st.integers(8, 512), st.integers(8, 512))
reals = st.floats(-1e6, 1e6)
nonzero = reals.filter(lambda x: x != 0.0)


@st.composite
def descriptions(draw):
    colour = draw(st.sampled_from(["gray", "rgb"]))
    channels = draw(st.sampled_from([1, 3])) if colour == "rgb" else 1
    resize = draw(st.none() | sizes)
    crop = draw(st.none() | st.tuples(st.integers(1, 8), st.integers(1, 8)))
    mean, std = (tuple(draw(st.lists(s, min_size=channels, max_size=channels))) for s in (reals, nonzero))
    return Preprocess(colour, resize, crop, draw(reals), mean, std)


@given(descriptions())
def test_a_description_comes_back_equal(description):
    assert Preprocess.from_json(description.to_json()) == description


def test_an_empty_description_changes_nothing():
    found = Preprocess.from_json({})
    assert (found.scale, found.mean, found.std, found.resize, found.crop) == (1.0, (0.0,), (1.0,), None, None)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"letterbox": True}, "recipe.toml [preprocess]: unknown key 'letterbox'"),
        ({"resize": [0, 28]}, "resize: [0, 28] is not [height, width]"),
        ({"resize": 28}, "resize: expected a list, found 28"),
        ({"std": [1.0, 0.0, 1.0], "colour": "rgb"}, "std: a standard deviation of 0"),
        ({"mean": []}, "mean: 0 values for colour 'gray'"),
        ({"scale": "1/255"}, "scale: expected a number, found '1/255'"),
    ],
)
def test_a_recipe_is_refused_with_its_own_leaf_and_path(document, words):
    with pytest.raises(RecipeError) as caught:
        Preprocess.from_json(document, "recipe.toml [preprocess]", RecipeError)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2
