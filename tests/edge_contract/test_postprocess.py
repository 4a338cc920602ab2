# SPDX-License-Identifier: Apache-2.0
"""The closed vocabulary of post-processing: words keep their bytes, objects come back equal, slips are named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import canonical
from edge_contract.boxes import ORDERS, AnchorLayer, Anchors, Boxes, Suppression
from edge_contract.errors import ManifestError
from edge_contract.postprocess import POSTPROCESS, Postprocess, of

shares = st.floats(0.01, 2.0)
layers = st.builds(
    AnchorLayer, st.integers(1, 64), st.lists(st.tuples(shares, shares), min_size=1, max_size=6).map(tuple)
)
anchors = st.builds(Anchors, st.lists(layers, min_size=1, max_size=4).map(tuple), st.floats(0, 1))
scales = st.tuples(*[st.floats(0.1, 1000)] * 4)


@st.composite
def boxes(draw):
    order, keypoints = draw(st.sampled_from(ORDERS)), draw(st.integers(0, 8))
    if order in ("xyxy", "yxyx"):
        return Boxes(order, draw(scales), keypoints=keypoints)
    return Boxes(order, draw(scales), draw(st.none() | anchors), draw(st.booleans()), keypoints)


suppression = st.builds(Suppression, st.floats(0, 1), st.integers(1, 1000), st.booleans())
scores = st.sampled_from(["softmax", "sigmoid", "none"])
detection = st.builds(Postprocess, scores, st.floats(0, 1), st.booleans(), boxes(), st.none() | suppression)
descriptions = detection | st.builds(Postprocess, scores, st.floats(0, 1)) | st.just(Postprocess("argmax"))


@given(descriptions)
def test_a_description_comes_back_equal_and_with_the_same_bytes(description):
    data = canonical.dumps(description.to_json())
    found = Postprocess.from_json(canonical.loads(data))
    assert found == description
    assert canonical.dumps(found.to_json()) == data


@pytest.mark.parametrize("word", POSTPROCESS)
def test_a_word_means_its_scores_and_nothing_else(word):
    assert of(word) == Postprocess(word)
    assert of(of(word)) == of(word)


BOXES = {"order": "xywh"}
LAYER = {"stride": 8, "sizes": [[1.0, 1.0]]}


def with_layers(*found):
    return {"boxes": {**BOXES, "anchors": {"layers": list(found)}}}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"scores": "softmin"}, "postprocess.scores: unknown value 'softmin'"),
        ({"threshold": 1.5}, "postprocess.threshold: 1.5 is not in 0 to 1"),
        ({"treshold": 0.5}, "postprocess: unknown key 'treshold'"),
        ({"suppression": {}}, "postprocess.suppression: there are no 'boxes'"),
        ({"background": True}, "postprocess.background: there are no 'boxes'"),
        ({"scores": "argmax", "threshold": 0.1}, "postprocess.scores: 'argmax' gives no score to compare"),
        ({"boxes": {}}, "postprocess.boxes: field 'order' is missing"),
        ({"boxes": {"order": "whxy"}}, "postprocess.boxes.order: unknown value 'whxy'"),
        ({"boxes": {**BOXES, "scales": [1.0, 1.0, 0.0, 1.0]}}, "are not four divisors above 0"),
        ({"boxes": {**BOXES, "keypoints": 0}}, "postprocess.boxes.keypoints: 0 is below 1"),
        ({"boxes": {"order": "yxyx", "exponential": True}}, "corners ('yxyx') have no anchors"),
        (with_layers(), "anchors.layers: 0 layers, not 1 to 16"),
        (with_layers({**LAYER, "stride": 0}), "layers[0].stride: 0 is below 1"),
        (with_layers({**LAYER, "sizes": [[1.0]]}), "layers[0].sizes[0]: [1.0] is not [height, width]"),
        (with_layers({**LAYER, "sizes": [[1.0, 1.0]] * 65}), "65 sizes, not 1 to 64"),
        (with_layers({**LAYER, "ratios": [1.0]}), "layers[0]: unknown key 'ratios'"),
        ({"boxes": BOXES, "suppression": {"iou": -0.1}}, "suppression.iou: -0.1 is not in 0 to 1"),
        ({"boxes": BOXES, "suppression": {"most": 10_001}}, "suppression.most: 10001 is above 10000"),
    ],
)
def test_a_slip_is_named(document, words):
    with pytest.raises(ManifestError) as caught:
        Postprocess.from_json(document)
    assert words in str(caught.value)
