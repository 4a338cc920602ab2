# SPDX-License-Identifier: Apache-2.0
"""The teacher's memory: the same answers, asked once, the same bits after a resume."""

import pytest
import torch
from torch import nn

from compress.distill.remember import Remembering
from compress.distill.soft_targets import combined, soft_target_loss
from compress.trainer import Training, train


class Counting(nn.Module):
    """A teacher that counts the inputs it was asked about."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(9, 4))
        self.asked = 0

    def forward(self, x):
        self.asked += len(x)
        return self.body(x)


def inputs(n, seed=0):
    return torch.randn(n, 1, 3, 3, generator=torch.Generator().manual_seed(seed))


def flips(x, generator):
    return torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5, x.flip(3), x)


def test_answers_are_the_teachers_in_any_order_and_mixture():
    teacher, x = Counting(), inputs(40)
    remembering = Remembering(teacher)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        rows = torch.randint(0, 40, (16,), generator=generator)
        assert torch.allclose(remembering(x[rows]), teacher.body(x[rows]), atol=1e-6)
    assert remembering.asked == teacher.asked <= 40
    assert remembering.found == 20 * 16 - remembering.asked


def test_inputs_that_differ_in_the_last_bit_are_told_apart():
    x = inputs(1).repeat(3, 1, 1, 1)
    x[1, 0, 2, 2] = torch.nextafter(x[1, 0, 2, 2], torch.tensor(9.0))
    x[2] = x[2].flip(2)
    remembering = Remembering(Counting())
    remembering(x)
    assert remembering.asked == 3


def test_memory_that_would_grow_too_large_is_given_up():
    teacher = Counting()
    remembering = Remembering(teacher, limit_bytes=10 * (8 + 4 * 4))
    x = inputs(40)
    for part in (x[:8], x[8:16], x[:8], x[16:]):
        assert torch.allclose(remembering(part), teacher.body(part), atol=1e-6)
    assert not remembering.kept()["is_open"] and not len(remembering.kept()["keys"])


def test_memory_comes_back_from_what_was_kept():
    first, x = Remembering(Counting()), inputs(12)
    answers = first(x)
    second = Remembering(Counting())
    second.restore(first.kept())
    assert torch.equal(second(x), answers) and second.asked == 0


@pytest.mark.parametrize("epochs", [1, 3])
def test_resumed_distillation_ends_in_the_same_bits_and_asks_nothing_twice(tmp_path, epochs):
    x, y = inputs(64), torch.arange(64) % 4

    def fresh():
        with torch.random.fork_rng():
            torch.manual_seed(2)
            return nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))

    def run(model, teacher, **words):
        loss = combined(teacher, temperature=2.0, alpha=0.9)
        train(model, x, y, Training(epochs=5, batch=16), loss=loss, augment=flips, **words)
        return model.state_dict()

    class Stop(Exception):
        pass

    def stop(log):
        if log.epoch == epochs:
            raise Stop

    whole, first, second = Counting(), Counting(), Counting()
    straight = run(fresh(), whole)
    with pytest.raises(Stop):
        run(fresh(), first, checkpoint=tmp_path / "c.pt", progress=stop)
    resumed = run(fresh(), second, checkpoint=tmp_path / "c.pt")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert whole.asked == first.asked + second.asked <= 128


def test_maps_of_answers_are_remembered_and_their_loss_is_a_mean_over_places():
    torch.manual_seed(0)
    teacher, x = nn.Conv2d(1, 4, 1), inputs(6)
    remembering = Remembering(teacher)
    first = remembering(x)
    assert first.shape == (6, 4, 3, 3) and torch.equal(remembering(x.flip(0)), first.flip(0))
    assert (remembering.asked, remembering.found) == (6, 6)
    student = torch.randn(6, 4, 3, 3)
    flat = [t.movedim(1, 3).reshape(-1, 4) for t in (student, first.detach())]
    assert torch.allclose(soft_target_loss(student, first.detach(), 2.0), soft_target_loss(*flat, 2.0))
