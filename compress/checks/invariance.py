# SPDX-License-Identifier: Apache-2.0
"""Perturbed inputs: how many answers change, and whether confidence moves the way it should."""

import math

import numpy as np
import torch

from compress import evaluate
from compress.checks.asked import Direction, Invariance
from compress.checks.outcome import CheckResult
from compress.checks.perturb import perturbed
from compress.checks.subject import Subject
from compress.evaluate import Z95

__all__ = ["direction", "invariance"]


def invariance(check: Invariance, subject: Subject) -> CheckResult:
    """Return the share of validation samples whose answer changes; it needs no labels.

    Fails where the lower end of the 95 % Wilson interval is above ``max_changed``; with ``strict``, where the share is.
    """
    after = subject.logits_of(_perturbed(check, subject)).argmax(1).numpy()
    changed = np.asarray(after != subject.answers)
    found = evaluate.score(int(changed.sum()), changed.size)
    figure, low, high = (100 * share for share in (found.accuracy, found.low, found.high))
    passed = (figure if check.strict else low) <= check.max_changed
    lost = int((subject.hits & (after != subject.data.validation.y)).sum())
    words = f"{_words(check)} changes {found} of {changed.size} answers, allowed {check.max_changed:g} %; "
    words += f"{lost} right answers become wrong"
    return CheckResult(check.name, check.kind, passed, figure, check.max_changed, "%", words, low, high)


def direction(check: Direction, subject: Subject) -> CheckResult:
    """Return by how many points the mean confidence in the first answers rises under the perturbation.

    The interval is that of a mean of paired differences, normal. Fails where its lower end is above ``max_rise``;
    with ``strict``, where the mean is. A network that grows surer on noise does not know what it does not know.
    """
    answers = torch.from_numpy(subject.answers)[:, None]
    before, after = (
        torch.softmax(logits.double(), 1).gather(1, answers)[:, 0].numpy()
        for logits in (subject.logits, subject.logits_of(_perturbed(check, subject)))
    )
    rise = 100 * (after - before)
    mean = float(rise.mean())
    half = Z95 * float(rise.std(ddof=1)) / math.sqrt(rise.size) if rise.size > 1 else math.inf
    passed = (mean if check.strict else mean - half) <= check.max_rise
    words = f"{_words(check)} moves the mean confidence by {mean:+.2f} points, allowed +{check.max_rise:g}"
    return CheckResult(check.name, check.kind, passed, mean, check.max_rise, "points", words, mean - half, mean + half)


def _perturbed(check: Invariance | Direction, subject: Subject) -> "np.ndarray":
    return perturbed(subject.data.validation.x, check.perturbation, check.amount, subject.recipe.preprocess)


def _words(check: Invariance | Direction) -> str:
    return check.perturbation + (f" {check.amount:g}" if check.amount else "")
