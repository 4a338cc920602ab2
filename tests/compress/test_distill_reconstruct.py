# SPDX-License-Identifier: Apache-2.0
"""Least squares against a library and against planted weights; reconstruction against what it must repair."""

import numpy as np
import pytest
import torch
from torch import nn

from compress.distill.reconstruct import least_squares, reconstruct
from tests.zoo import data, models


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LAYERS = {
    "linear": (lambda: nn.Linear(5, 3), (40, 5)),
    "linear of a series": (lambda: nn.Linear(5, 3), (10, 7, 5)),
    "pointwise": (lambda: nn.Conv2d(4, 6, 1, bias=False), (9, 4, 5, 5)),
    "stride and padding": (lambda: nn.Conv2d(2, 4, 3, 2, 1), (20, 2, 9, 8)),
    "dilated": (lambda: nn.Conv2d(2, 3, 3, padding=2, dilation=2), (20, 2, 9, 8)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, 1, 1, groups=4, bias=False), (12, 4, 6, 6)),
    "grouped": (lambda: nn.Conv2d(4, 6, (3, 2), groups=2), (30, 4, 7, 7)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_weights_of_another_layer_are_found_again(name):
    build, shape = LAYERS[name]
    torch.manual_seed(1)
    planted, layer, x = build(), build(), draw(*shape)
    with torch.no_grad():
        wanted = planted(x)
        least_squares(layer, x, wanted, ridge=1e-9)
        assert torch.allclose(layer(x), wanted, atol=1e-4)
    assert torch.allclose(layer.weight, planted.weight, atol=1e-4)


def test_fit_is_numpys_where_nothing_is_exact():
    layer, x, wanted = nn.Linear(4, 2), draw(30, 4), draw(30, 2, seed=1)
    least_squares(layer, x, wanted, ridge=1e-12)
    rows = np.hstack([x.numpy(), np.ones((30, 1), np.float32)])
    expected, *_ = np.linalg.lstsq(rows.astype(np.float64), wanted.numpy().astype(np.float64), rcond=None)
    assert np.allclose(layer.weight.detach().numpy().T, expected[:-1], atol=1e-5)
    assert np.allclose(layer.bias.detach().numpy(), expected[-1], atol=1e-5)


def test_inputs_in_many_parts_give_the_same_fit(monkeypatch):
    fits = []
    for most in (10**9, 100):
        monkeypatch.setattr("compress.distill.reconstruct._MOST_ELEMENTS", most)
        torch.manual_seed(1)
        layer = nn.Conv2d(2, 3, 3)
        least_squares(layer, draw(20, 2, 6, 6), draw(20, 3, 4, 4, seed=1))
        fits.append(layer.weight.detach().clone())
    assert torch.allclose(*fits, atol=1e-6)


def test_what_the_inputs_do_not_show_keeps_its_weight():
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 2, bias=False), draw(20, 3)
    x[:, 1] = 0
    before = layer.weight.detach().clone()
    least_squares(layer, x, draw(20, 2, seed=1))
    assert torch.allclose(layer.weight[:, 1], before[:, 1])
    assert not torch.allclose(layer.weight[:, 0], before[:, 0])


def test_lost_channel_that_others_can_express_is_made_up_for():
    """Two hidden channels are equal: without one of them, twice the weight on the other gives the same outputs."""
    wide, narrow = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    with torch.no_grad():
        wide[0].weight[2], wide[0].bias[2] = wide[0].weight[1], wide[0].bias[1]
        narrow[0].weight.copy_(wide[0].weight[:2]), narrow[0].bias.copy_(wide[0].bias[:2])
        narrow[1].weight.copy_(wide[1].weight[:, :2]), narrow[1].bias.copy_(wide[1].bias)
        x = draw(50, 3)
        assert not torch.allclose(narrow(x), wide(x), atol=0.05)
        reconstruct(narrow, wide, {"0": (0, 1)}, x)
        assert torch.allclose(narrow(x), wide(x), atol=1e-2)  # the ridge pulls a little to the old weights


def test_zoo_student_knows_most_answers_before_any_training():
    from compress.distill.inherit import inherit

    images, _ = data.load("train")
    x = data.scaled(images[:768])
    teacher, student = models.load("mobilenet-v2"), models.student()
    inherit(student, teacher, x[:256])
    with torch.no_grad():
        agreement = float((student(x[256:]).argmax(1) == teacher(x[256:]).argmax(1)).float().mean())
    assert agreement > 0.6  # a tenth by chance; 0.14 with the teacher's channels but without reconstruction
    assert not student.training and all(p.requires_grad for p in student.parameters())
