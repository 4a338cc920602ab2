# SPDX-License-Identifier: Apache-2.0
"""A compression report with everything in it, made of plain numbers: no network is trained for it."""

from dataclasses import replace

import numpy as np

from compress.cost import Cost, LayerCost
from compress.evaluate import paired_difference, score
from compress.quantize.distribution import Histogram
from compress.quantize.fidelity import Fidelity, LayerFidelity
from compress.quantize.sensitivity import Effect, LayerSensitivity, Sensitivity
from compress.report import BudgetLine, CompressionReport, ModelRow, Point, Rung, StepReport
from compress.report_parts import pack

__all__ = ["full_report", "hits", "retrained"]


def hits(right: int, samples: int = 200, seed: int = 1):
    """So many right answers among the samples, bool [samples]."""
    found = np.zeros(samples, np.bool_)
    found[np.random.default_rng(seed).permutation(samples)[:right]] = True
    return found


def _score(found):
    return score(int(found.sum()), found.size)


def _cost(channels: int) -> Cost:
    layers = (
        LayerCost("stem", "Conv2d", 900 * channels, 9 * channels, 2000, channels),
        LayerCost("norm", "BatchNorm2d", 0, 2 * channels, 1800, channels),
        LayerCost("head", "Linear", 10 * channels, 10 * channels + 10, 30, 10),
    )
    return Cost(910 * channels, 21 * channels + 10, 2000, layers)


def _fidelity() -> Fidelity:
    layers = (
        LayerFidelity("stem", "conv2d", 31.0, 31.0, 1.0, 0.9999, 3.0, 0.0),
        LayerFidelity("pool<1>", "global_pool", 33.0, 44.0, -2.0, 0.9999, 1.0, 0.0),
        LayerFidelity("head", "linear", 22.5, 24.0, 8.5, 0.9911, 9.0, 0.002),
    )
    names = ("input", "stem", "pool<1>", "head")
    outputs = tuple(Histogram(name, -1.0, 0.25, (1, 4, 9, 30, 22, 8, 2, 1), -0.8, 0.9) for name in names)
    weights = tuple(Histogram(name, -0.5, 0.125, (2, 8, 31, 40, 33, 7, 1), -0.5, 0.5) for name in ("stem", "head"))
    return Fidelity(64, layers, weights, outputs)


def _sensitivity() -> Sensitivity:
    change = paired_difference(hits(180), hits(178))
    layers = []
    for i, name in enumerate(("stem", "head")):
        kl = {"4": 3e-3 / (i + 1), "8": 2e-5 * (i + 1), "float": 1e-5}
        effects = {c: Effect(40.0 - i, loss, 0.99, change, 100 * (j + 1)) for j, (c, loss) in enumerate(kl.items())}
        layers.append(LayerSensitivity(name, "conv2d" if i == 0 else "linear", 144, effects))
    return Sensitivity(200, tuple(layers))


def full_report() -> CompressionReport:
    """Enter, train, prune, quantize with a ladder; test rows, trials, notes."""
    found = [hits(20), hits(190, seed=2), hits(186, seed=3), hits(185, seed=4)]
    names = [("enter", "untrained"), ("train", "labels"), ("prune", "taylor"), ("quantize", "static-int8")]
    steps: list[StepReport] = []
    for i, ((kind, method), right) in enumerate(zip(names, found, strict=True)):
        change = paired_difference(found[i - 1], right) if i > 1 else None
        drop = 100 * float(found[1].mean() - right.mean()) if i else None
        cost, size = _cost(16 if i < 2 else 8), (2.4, 2.4, 1.2, 0.4)[i]
        losses = (1.5, 0.8, 0.4) if kind in ("train", "prune") else ()
        measured = {"peak_kb": size * 3, "zipped_kb": size * 0.9, "hits": pack(right)}
        steps.append(StepReport(i, kind, method, _score(right), change, drop, cost, size, 1.5 * i, losses, **measured))
    rungs = (
        Rung("start", "min-max", 1.5, 4e-3, 0.5, is_kept=True, score=_score(hits(183))),
        Rung("observer", "percentile", 2.0, 6e-3, 0.5, is_kept=False),
        Rung("adaptive rounding", "layer by layer", 0.5, 1e-3, 9.0, is_kept=True, score=_score(found[3])),
    )
    last = replace(steps[3], ladder=rungs, fidelity=_fidelity(), sensitivity=_sensitivity(), latency_ms=0.7)
    tests = {"teacher": hits(290, 300), "float": hits(284, 300, 5), "int8": hits(283, 300, 6)}
    rows = tuple(ModelRow(name, _score(one), 7280, 178, 0.9, pack(one)) for name, one in tests.items())
    return CompressionReport(
        "bars",
        "rpi4",
        "top1",
        3,
        "a" * 64,
        "d" * 64,
        "",
        (*steps[:3], last),
        (BudgetLine("size_kb", 1.0, 0.4), BudgetLine("max_drop", 1.0, 2.5)),
        rows,
        paired_difference(tests["float"], tests["int8"]),
        (("numpy", "2.0"), ("torch", "2.13")),
        9.0,
        ("only 20 calibration samples",),
        (Point("trial 1", 0.9, size_kb=0.3), Point("trial 2", 0.94, size_kb=0.6, macs=9000.0, latency_ms=0.9)),
    )


def retrained() -> CompressionReport:
    """The same recipe with another seed: a few answers differ, and a step is missing."""
    report = full_report()
    better = hits(192, seed=4)
    last = replace(report.steps[3], score=_score(better), hits=pack(better), cost=_cost(12), fidelity=None)
    rows = tuple(replace(row, score=_score(hits(291, 300, 9)), hits=pack(hits(291, 300, 9))) for row in report.test[1:])
    return replace(report, name="bars-2", steps=(*report.steps[:2], last), test=rows)
