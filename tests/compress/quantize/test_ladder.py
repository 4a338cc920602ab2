# SPDX-License-Identifier: Apache-2.0
"""The accuracy ladder: which cure is tried when, what counts as better, and when it ends."""

import pytest
import torch

from compress.quantize.ladder import TRIED, Cures, Judged, climb, divergence
from compress.steps.quantize import Settings


class Bench:
    """Plans are settings here; a table of what each loses judges them."""

    def __init__(self, losses, worst=("a", "b", "c")):
        self.losses, self.made, self._worst = losses, [], worst

    def make(self, settings):
        self.made.append(settings)
        return settings

    def train(self, settings):
        self.made.append("trained")
        return "trained"

    def judge(self, plan):
        return Judged(*self.losses(plan))

    def cures(self, *, worst=True, train=True):
        return Cures(self.make, self.judge, (lambda _: self._worst) if worst else None, self.train if train else None)


def test_nothing_is_tried_when_the_start_keeps_the_drop():
    bench = Bench(lambda plan: (0.1, 0.01))
    made = climb(Settings(), bench.cures(), 0.1)
    assert [attempt.rung for attempt in made.attempts] == ["start"] and made.best.plan == Settings()


def test_plan_that_is_there_already_is_not_made_again():
    bench = Bench(lambda plan: (0.0, 0.01))
    made = climb(Settings(), bench.cures(), 0.1, first="ready")
    assert bench.made == [] and made.best.plan == "ready"


def test_all_rungs_are_climbed_in_order_when_nothing_helps():
    bench = Bench(lambda plan: (5.0, 0.01))
    heard = []
    made = climb(Settings(correct_bias=False), bench.cures(), 0.5, told=heard.append)
    rungs = list(dict.fromkeys(attempt.rung for attempt in made.attempts))
    assert rungs == [
        "start",
        "observer",
        "bias correction",
        "adaptive rounding",
        "equalization",
        "wide layers",
        "short training",
    ]
    assert [attempt.what for attempt in made.attempts if attempt.rung == "observer"] == list(TRIED[1:])
    assert [attempt.what for attempt in made.attempts if attempt.rung == "wide layers"] == ["a", "a, b"]  # 4 > 3
    assert heard == list(made.attempts) and made.best is made.attempts[0]


def test_winner_of_a_rung_is_what_the_next_one_starts_from():
    def losses(plan):
        if plan == "trained":
            return 2.0, 0.5
        better = plan.observer == "min-max", plan.equalize, plan.rounding == "adaptive"
        return 2.0, 1.0 - 0.1 * sum(better)

    bench = Bench(losses)
    made = climb(Settings(), bench.cures(worst=False), 0.5)
    kept = [(attempt.rung, attempt.what) for attempt in made.attempts if attempt.is_kept]
    assert kept == [
        ("start", "rounding-error"),
        ("observer", "min-max"),
        ("adaptive rounding", "layer by layer"),
        ("equalization", "across layers"),
        ("short training", "learned step sizes"),
    ]
    assert made.best.settings == Settings(observer="min-max", equalize=True, rounding="adaptive")


def test_kept_drop_wins_over_a_smaller_divergence_and_ends_the_climb():
    def losses(plan):
        return (0.4, 0.9) if plan.equalize else (0.6, 0.1)

    made = climb(Settings(), Bench(losses).cures(), 0.5)
    assert made.best.rung == "equalization" and made.attempts[-1] is made.best


def test_layers_that_are_wide_already_are_not_offered_again():
    bench = Bench(lambda plan: (5.0, 0.5))
    made = climb(Settings(wide=("a",)), bench.cures(train=False), 0.5)
    wide = [attempt.settings.wide for attempt in made.attempts if attempt.rung == "wide layers"]
    assert wide == [("a", "b"), ("a", "b", "c")]


def test_divergence_is_that_of_an_independent_library():
    scipy_stats = pytest.importorskip("scipy.stats", reason="pip install scipy")
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(5, 4, generator=generator), torch.randn(5, 4, generator=generator)
    rows = [scipy_stats.entropy(p, q) for p, q in zip(first.softmax(1), second.softmax(1), strict=True)]
    assert divergence(first, second) == pytest.approx(sum(rows) / 5, rel=1e-5)
    assert divergence(first, first) == 0.0
