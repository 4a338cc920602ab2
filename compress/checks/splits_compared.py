# SPDX-License-Identifier: Apache-2.0
"""The splits against each other: class balance, identical inputs, and how much better training data are answered."""

import hashlib
from collections import Counter
from itertools import combinations
from math import hypot
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from compress import evaluate
from compress.checks.asked import Balance, Gap, Leakage
from compress.checks.outcome import FAILED, PASSED, CheckResult, Row
from compress.checks.subject import Subject
from compress.evaluate import Difference, Score
from compress.quantize import semantics
from compress.quantize.plan import QuantizationPlan
from compress.splits import NAMES, Split

__all__ = ["balance", "gap", "leakage", "newcombe"]

_BATCH: Final = 512


def gap(check: Gap, subject: Subject) -> CheckResult:
    """Return accuracy on the training split minus accuracy on the validation split, in points.

    On ``samples`` training samples, evenly taken. Fails where the lower end of the interval is above ``max``; with
    ``strict``, where the figure is. Augmentation is off, so a gap is what the network knows by heart.
    """
    train = subject.data.train
    rows = np.linspace(0, len(train) - 1, min(check.samples, len(train))).astype(np.int64)
    x, y = subject.tensors(train.take(np.unique(rows)))
    right = evaluate.hits(subject.shipped, x, y)
    seen = evaluate.score(int(right.sum()), right.size)
    unseen = evaluate.score(int(subject.hits.sum()), subject.hits.size)
    found = newcombe(unseen, seen)
    passed = (found.points if check.strict else found.low) <= check.max
    words = f"train {seen} of {seen.samples}, validation {unseen} of {unseen.samples}: {found}, allowed {check.max:g}"
    return CheckResult(check.name, check.kind, passed, found.points, check.max, "points", words, found.low, found.high)


def newcombe(first: Score, second: Score) -> Difference:
    """Return the second share minus the first, of different samples, in points, with its 95 % interval.

    Both Wilson intervals are combined: the lower end is d - sqrt((p₂ - l₂)² + (u₁ - p₁)²).

    Example:
        >>> from compress.evaluate import score
        >>> str(newcombe(score(48, 80), score(56, 70)))
        '+20.00 points [+5.24, +33.39]'

    Reference:
        Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10; the example
        is its table II, row a.
    """
    p1, p2 = first.accuracy, second.accuracy
    low = p2 - p1 - hypot(p2 - second.low, first.high - p1)
    high = p2 - p1 + hypot(second.high - p2, p1 - first.low)
    return Difference(100 * (p2 - p1), 100 * low, 100 * high)


def balance(check: Balance, subject: Subject) -> CheckResult:
    """Return how many times as many training samples the largest class has as the smallest.

    A class without training samples fails, and so does one with fewer than ``min_calibration`` calibration samples.
    """
    counts = [Counter(split.y.tolist()) for split in (subject.data.train, subject.data.calibration)]
    rows = [
        Row(name, float(counts[0][label]), None, None, counts[0][label], *_judged(check, counts, label))
        for label, name in enumerate(subject.labels)
    ]
    least, most = (chosen(row.samples for row in rows) for chosen in (min, max))
    ratio = most / least if least else float(most)
    failed = [row for row in rows if row.verdict == FAILED]
    words = f"training classes of {least} to {most} samples, a ratio of {ratio:.2f}, allowed {check.max_ratio:g}"
    if failed:
        words += f"; class '{failed[0].name}': {failed[0].words}"
    passed = not failed and ratio <= check.max_ratio
    return CheckResult(check.name, check.kind, passed, ratio, check.max_ratio, "", words, rows=tuple(rows))


def _judged(check: Balance, counts: list["Counter[int]"], label: int) -> tuple[str, str]:
    train, calibration = (one[label] for one in counts)
    words = f"{train} training and {calibration} calibration samples"
    if calibration < check.min_calibration:
        words += f", {check.min_calibration} asked"
    return (PASSED if train and calibration >= check.min_calibration else FAILED), words


def leakage(check: Leakage, subject: Subject) -> CheckResult:
    """Return how many inputs stand in two splits, as the model sees them.

    Raw inputs that are equal were refused when the data were read. Here inputs are compared after preprocessing: two
    photographs may differ in what cropping and resizing take away. With ``coarse`` and a plan they are compared as
    integer codes; then two windows of a sensor at rest may be the same, too, which is no leak.
    """
    plan = subject.plan if check.coarse else None
    prints = {name: set(_digests(subject, plan, getattr(subject.data, name).x)) for name in NAMES if name != "test"}
    prints["test"] = set(subject.test_digests(lambda raw: _digests(subject, plan, raw)))
    rows = []
    for first, second in combinations(NAMES, 2):
        shared = len(prints[first] & prints[second])
        rows.append(Row(f"{first} and {second}", float(shared), None, None, len(prints[second])))
    total = sum(int(row.figure) for row in rows)
    worst = max(rows, key=lambda row: row.figure)
    seen = "as the integers see them" if plan is not None else "after preprocessing"
    words = f"{total} inputs stand in two splits {seen}, allowed {check.max}"
    words += f"; {int(worst.figure)} in {worst.name}" if total else ""
    passed = total <= check.max
    return CheckResult(
        check.name, check.kind, passed, float(total), float(check.max), "inputs", words, rows=tuple(rows)
    )


def _digests(subject: Subject, plan: QuantizationPlan | None, raw: NDArray[Any]) -> list[bytes]:
    """Return a digest of each input as the model reads it; a few at a time, so that memory does not grow."""
    found: list[bytes] = []
    for start in range(0, len(raw), _BATCH):
        x = subject.tensors(Split.unlabelled(raw[start : start + _BATCH]))[0]
        if plan is not None:
            source = plan.activations[plan.input]
            x = semantics.quantize(x, source.scale, source.zero_point).to(torch.int16)
        found += [hashlib.blake2b(one.tobytes(), digest_size=16).digest() for one in x.contiguous().numpy()]
    return found
