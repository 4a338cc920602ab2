# SPDX-License-Identifier: Apache-2.0
"""Weights to begin with: the most important channels, chosen together where they are coupled; refusals by name."""

import pytest
import torch
from torch import nn

from compress.distill.inherit import inherit, start_afresh
from compress.prune.batch_norm import reestimate
from edge_contract.errors import ModelError

EXAMPLE = torch.randn(48, 1, 12, 12, generator=torch.Generator().manual_seed(4))


class Residual(nn.Module):
    """Stem, a depthwise block that is added to it, classifier."""

    def __init__(self, width, hidden, classes=3):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.expand, self.norm1 = nn.Conv2d(width, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        self.deep, self.norm2 = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden)
        self.project, self.norm3 = nn.Conv2d(hidden, width, 1, bias=False), nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        y = torch.relu(self.norm1(self.expand(x)))
        y = torch.relu(self.norm2(self.deep(y)))
        return self.head((x + self.norm3(self.project(y))).mean((2, 3)))


def trained(width, hidden, seed=0, dead=((), ())):
    """A network whose normalisations know the statistics of ``EXAMPLE``; its dead channels do nothing."""
    torch.manual_seed(seed)
    net = Residual(width, hidden)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.normal_(module.bias, 0, 0.2)
    kill(net, *map(list, dead))
    reestimate(net, EXAMPLE)
    return net


def kill(net, channels, hidden):
    """Make channels of the sum, and hidden channels, do nothing."""
    with torch.no_grad():
        for layer in (net.stem, net.project, net.norm, net.norm3):
            layer.weight[channels] = 0
        for layer in (net.expand, net.deep, net.norm1, net.norm2):
            layer.weight[hidden] = 0
        for norm, dead in ((net.norm, channels), (net.norm3, channels), (net.norm1, hidden), (net.norm2, hidden)):
            norm.bias[dead] = 0
        net.head.weight[:, channels] = 0
        net.expand.weight[:, channels] = 0
        net.project.weight[:, hidden] = 0


def test_student_computes_what_the_teacher_computes_if_the_surplus_channels_do_nothing():
    """The choice must be the same along the sum, the depthwise layer and every normalisation for this to hold."""
    teacher = trained(10, 14, dead=((0, 3, 9), (1, 2, 7, 13)))
    student = Residual(7, 10).eval()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    inherit(student, teacher, EXAMPLE)
    with torch.no_grad():
        # The ridge pulls by a thousandth, and a running variance is the unbiased one.
        assert torch.allclose(student(EXAMPLE), teacher(EXAMPLE), atol=5e-3)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(p.requires_grad for p in student.parameters())


def test_student_of_the_same_widths_takes_everything():
    teacher, student = trained(6, 8), Residual(6, 8)
    inherit(student, teacher, EXAMPLE)
    for name, parameter in student.named_parameters():
        assert torch.allclose(parameter, teacher.state_dict()[name], atol=5e-3)  # nothing is missing, so nothing moves


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (lambda: Residual(12, 8), "stem: cannot take .*: 12 channels, the teacher has 10"),
        (lambda: Residual(6, 8, classes=5), r"head\.weight: .*shape \[5, 6\], the teacher's channels give \[3, 6\]"),
        (lambda: nn.Sequential(nn.Conv2d(1, 4, 3)), r"0\.weight: .*only the student has it"),
    ],
    ids=["wider", "classes", "names"],
)
def test_student_that_does_not_fit_is_refused_by_name(student, message):
    with pytest.raises(ModelError, match=message):
        inherit(student(), trained(10, 14), EXAMPLE)


def test_other_kernel_is_refused_by_name():
    student = Residual(6, 8)
    student.stem = nn.Conv2d(1, 6, 5, 2, 2, bias=False)
    with pytest.raises(ModelError, match=r"stem\.weight: .*\[6, 1, 5, 5\], .* give \[6, 1, 3, 3\]; build student and"):
        inherit(student, trained(10, 14), EXAMPLE)


def test_fresh_start_draws_new_weights_from_the_seed_alone():
    first, second, third = (trained(4, 6, seed=seed) for seed in (1, 2, 3))
    state = torch.random.get_rng_state()
    start_afresh(first, 7), start_afresh(second, 7), start_afresh(third, 8)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    assert not torch.equal(first.stem.weight, third.stem.weight)
    assert bool((first.norm.weight == 1).all())


def test_fresh_start_names_what_cannot_draw_its_weights():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

    with pytest.raises(ModelError, match=r"1: a Scale does not know how to draw its weights; give the class a method"):
        start_afresh(nn.Sequential(nn.Linear(1, 1), Scale()), 0)
