# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0 through the whole chain: the description that travels with a model decides its accuracy.

Our numpy preprocessing → the published float network → our post-processing, on the twenty ImageNet pictures of foolbox
(the label is in the name). With n = 20 the 95 % interval of 18 / 20 is 70 to 97 %, so it does not measure the network:
it holds the chain to the very answers that Pillow and torch give.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edge_agent.runner.postprocess import decide
from edge_agent.runner.preprocess import apply
from edge_contract import canonical
from edge_contract.preprocess import Preprocess, parse
from tests.zoo import models

foolbox = pytest.importorskip("foolbox", reason="pip install foolbox==3.3.4")
RIGHT = Preprocess("rgb", (224, 224), mean=(127.0,), std=(128.0,), method="bicubic", centre=(224 / (224 + 32),))
IMAGENET = {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""What most other networks of torchvision want, and what a careless hand would write."""


@pytest.fixture(scope="module")
def pictures():
    """(raw uint8 [H, W, 3], label) of each picture."""
    paths = sorted((Path(foolbox.__file__).parent / "data").glob("imagenet_*"))
    found = [(np.asarray(Image.open(path).convert("RGB")), int(re.split(r"[_.]", path.name)[-2])) for path in paths]
    assert len(found) == 20
    return found


@pytest.fixture(scope="module")
def lite0():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield models.load("efficientnet-lite0")
    torch.set_num_threads(threads)


def right_answers(net, pictures, description):
    """Return which pictures the chain answers rightly; the description goes through the manifest's bytes first."""
    travelled = parse(canonical.loads(canonical.dumps(description.to_json())))
    found = []
    for raw, label in pictures:
        x = torch.from_numpy(np.ascontiguousarray(apply(travelled, raw).transpose(2, 0, 1)[None]))
        with torch.no_grad():
            logits = net(x)[0].numpy()
        best, confidence = decide("softmax", logits)
        assert 0 < confidence <= 1
        found.append(best == label)
    return found


def test_the_chain_keeps_the_eighteen_of_twenty(lite0, pictures):
    assert sum(right_answers(lite0, pictures, RIGHT)) == 18


def test_another_network_s_normalisation_keeps_fifteen(lite0, pictures):
    assert sum(right_answers(lite0, pictures, replace(RIGHT, **IMAGENET))) == 15


def test_the_published_crop_and_its_usual_spelling_say_the_same(lite0, pictures):
    """Resize the shorter side to 256 and crop 224: other pixels at the edges of the kernel, the same answers."""
    usual = replace(RIGHT, centre=(), resize=(256, 256), fit="cover", crop=(224, 224))
    assert sum(right_answers(lite0, pictures, usual)) == 18


def test_the_input_is_pillow_s_to_the_bit(pictures):
    for raw, _ in pictures:
        height, width = raw.shape[:2]
        side = int(224 / 256 * min(height, width))
        top, left = (height - side) // 2, (width - side) // 2
        crop = Image.fromarray(raw).crop((left, top, left + side, top + side))
        expected = (np.asarray(crop.resize((224, 224), Image.Resampling.BICUBIC), np.float32) - 127) / 128
        assert (apply(RIGHT, raw) == expected).all()
