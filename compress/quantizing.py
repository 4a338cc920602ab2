# SPDX-License-Identifier: Apache-2.0
"""The recipe's quantize step: a plan by its settings, the accuracy ladder where it loses too much, what is reported.

A network that no plan can hold takes another way: its weights are rounded (``quantize.weight_only``), the graph stays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from compress import evaluate
from compress.final import int8_logits
from compress.quantize import fidelity, mixed, sensitivity
from compress.quantize.graph import FloatGraph
from compress.quantize.ladder import Attempt, Climb, Cures, Judged, climb, divergence
from compress.quantize.plan import QuantizationPlan
from compress.quantize.step import Quantizer
from compress.report import Rung
from compress.sources import Tensors
from compress.steps.quantize import Mixed, Quantize, Settings
from compress.trainer import Augment, Progress

__all__ = ["Bench", "Quantized", "quantized"]

MOST_SAMPLES = 256
"""Of the validation split, on which layers are compared one by one: enough for a mean, and a minute at most."""


@dataclass(frozen=True)
class Bench:
    """What a quantize step works with; there is no test split in it.

    Attributes:
        model: The float model.
        train, calibration, validation: The splits.
        reference: Accuracy from which the drop is counted, 0 to 1.
        clusters: How many values a layer's weights share after a ``cluster`` step; 0 without one.
        teacher, augment, seed, checkpoint, progress: For quantization-aware training.
        told: Hears of each attempt of the ladder.
    """

    model: nn.Module
    train: Tensors
    calibration: Tensors
    validation: Tensors
    reference: float
    clusters: int = 0
    teacher: nn.Module | None = None
    augment: Augment | None = None
    seed: int = 0
    checkpoint: Path | None = None
    progress: Progress | None = None
    told: Callable[[Attempt], None] | None = None


@dataclass(frozen=True, eq=False)
class Quantized:
    """What came out, and what the report shows of it.

    Attributes:
        graph: The float network as the best attempt prepared it.
        plan: The best attempt's.
        ladder: Every attempt, if there was more than one.
        fidelity: Layer by layer, the integers against the float network.
        sensitivity: What each layer alone costs, if something needed to know.
    """

    graph: FloatGraph
    plan: QuantizationPlan
    ladder: tuple[Rung, ...]
    fidelity: fidelity.Fidelity
    sensitivity: sensitivity.Sensitivity | None


def quantized(step: Quantize, bench: Bench) -> Quantized:
    """Return the plan of a step, by the ladder if it may climb.

    Raises:
        DataError, ModelError, UnsupportedOperatorError: As ``compress.quantize.step.quantize``.
        BudgetError: No mix of bits fits ``mixed``.
    """
    work = _Work(step, bench)
    settings = step.settings if step.mixed is None else replace(step.settings, bits=work.mix(step.mixed))
    is_trained = step.method == "qat-int8"
    start = work.train if is_trained else work.plan
    if step.ladder and step.max_drop is not None:
        cures = Cures(work.plan, work.judge, work.worst, None if is_trained else work.train)
        made = climb(settings, cures, step.max_drop, first=start(settings), told=bench.told)
    else:
        made = climb(settings, Cures(start, work.judge), float("inf"), told=bench.told)
    return work.result(made)


class _Work:
    """The model traced once, and what the ladder asks of it."""

    def __init__(self, step: Quantize, bench: Bench) -> None:
        self._step, self._bench = step, bench
        self._quantizer = Quantizer(bench.model, bench.calibration.x, clusters=bench.clusters)
        self._sensitivity: sensitivity.Sensitivity | None = None

    @cached_property
    def _float(self) -> Tensor:
        return evaluate.predict(self._bench.model, self._bench.validation.x)

    def plan(self, settings: Settings) -> QuantizationPlan:
        return self._quantizer.plan(settings)

    def judge(self, plan: QuantizationPlan) -> Judged:
        validation = self._bench.validation
        logits = evaluate.predict(int8_logits(plan), validation.x)
        correct = int((logits.argmax(1) == validation.y).sum())
        score = evaluate.score(correct, len(validation))
        return Judged(100 * (self._bench.reference - score.accuracy), divergence(self._float, logits), score)

    def worst(self, settings: Settings) -> Sequence[str]:
        ranked = self._measured(settings, ("8", "float")).ranked("8", against="float")
        return [layer.layer for layer in ranked]

    def mix(self, wanted: Mixed) -> tuple[tuple[str, str], ...]:
        found = self._measured(self._step.settings, wanted.bits)
        limit = mixed.Limit("size_bytes", found.sizes(), 1000 * wanted.size_kb)
        return tuple(mixed.choose(found.losses(), [limit]).choices.items())

    def _measured(self, settings: Settings, choices: Sequence[str]) -> sensitivity.Sensitivity:
        validation = self._bench.validation
        x, y = validation.x[:MOST_SAMPLES], validation.y[:MOST_SAMPLES]
        graph, plan = self._quantizer.prepared(settings), self._quantizer.plan(settings)
        self._sensitivity = sensitivity.measure(graph, plan, x, y, choices=choices)
        return self._sensitivity

    def train(self, settings: Settings) -> QuantizationPlan:
        from compress.quantize.qat import retrained

        bench = self._bench
        return retrained(
            self._quantizer,
            settings,
            bench.train,
            bench.validation,
            training=replace(self._step.qat, seed=bench.seed),
            teacher=bench.teacher,
            augment=bench.augment,
            checkpoint=bench.checkpoint,
            progress=bench.progress,
        )

    def result(self, made: Climb) -> Quantized:
        best = made.best
        calibration = self._bench.calibration.x[:MOST_SAMPLES]
        graph = self._quantizer.prepared(best.settings)
        found = fidelity.measure(graph, best.plan, calibration)
        rungs = tuple(
            Rung(a.rung, a.what, a.judged.drop, a.judged.divergence, a.seconds, a.is_kept, a.judged.score)
            for a in made.attempts
        )
        return Quantized(graph, best.plan, rungs if len(rungs) > 1 else (), found, self._sensitivity)
