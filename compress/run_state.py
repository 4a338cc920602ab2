# SPDX-License-Identifier: Apache-2.0
"""One run of a recipe: what its steps share, and what they have reached so far."""

import copy
import time
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from compress import cost, evaluate
from compress.cost import Cost
from compress.distill.step import fit
from compress.final import int8_logits, plan_kb
from compress.listener import Listener
from compress.prune.step import Cut, cut, fine_tune
from compress.quantize.plan import QuantizationPlan
from compress.quantize.step import quantize
from compress.recipe import Recipe
from compress.report import StepReport
from compress.sources import Tensors
from compress.steps import Prune, Quantize, Step, Train
from compress.trainer import Augment, EpochLog
from compress.work import Progressed, WorkFolder
from edge_contract.errors import BudgetError

__all__ = ["RunState", "Shared"]

Losses = tuple[float, ...]


@dataclass(frozen=True)
class Shared:
    """What every step of a run may use; there is no test split in it."""

    recipe: Recipe
    train: Tensors
    calibration: Tensors
    validation: Tensors
    teacher: nn.Module | None
    augment: Augment | None
    work: WorkFolder
    listener: Listener

    @property
    def example(self) -> Tensor:
        """One input, float32 [1,C,H,W]."""
        return self.train.x[:1]


class RunState:
    """The model as it is after the last step, and the report of every step.

    Attributes:
        now: The float model.
        plan: The int8 model, after a quantize step.
        done: Reports, the entering model first.
    """

    def __init__(self, shared: Shared, entering: nn.Module) -> None:
        self.shared = shared
        self._fresh = copy.deepcopy(entering)
        self.now = Progressed(entering)
        self.plan: QuantizationPlan | None = None
        self.done: list[StepReport] = []
        self._hits: evaluate.Hits | None = None
        self._reference: float | None = None

    def enter(self) -> None:
        """Measure the model as it enters the recipe."""
        started = time.perf_counter()
        self._report(0, ("enter", "weights" if self.shared.recipe.model.weights else "untrained"), started)
        if self.shared.recipe.model.weights:
            self._reference = self.done[-1].score.accuracy
            self.done[-1] = replace(self.done[-1], drop=0.0)

    def step(self, number: int, step: Step) -> StepReport:
        """Run one step, or take it from the work folder, and return its report."""
        if not isinstance(step, Train) and self._reference is None:
            # The recipe trained its own model: what lossy steps lose is counted from there.
            self._reference = self.done[-1].score.accuracy
        if isinstance(step, Quantize):
            return self._quantize(number, step)
        found = self.shared.work.find(number, "done", copy.deepcopy(self._fresh), self.shared.example)
        if found is not None:
            return self._resume(number, step, *found)
        return self._prune(number, step) if isinstance(step, Prune) else self._train(number, step)

    def _resume(self, number: int, step: Step, after: Progressed, saved: dict[str, Any]) -> StepReport:
        self.now = after
        old = StepReport.from_json(saved)
        report = self._report(
            number, (step.kind, step.method), time.perf_counter(), losses=old.losses, note=old.note, tell=False
        )
        self.done[-1] = report = replace(report, seconds=old.seconds)
        self.shared.listener.ends(report, resumed=True)
        return report

    def _fit_words(self, number: int) -> dict[str, Any]:
        shared = self.shared
        return {
            "seed": shared.recipe.seed + number,
            "teacher": shared.teacher,
            "augment": shared.augment,
            "checkpoint": shared.work.training(number),
            "progress": shared.listener.epoch,
        }

    def _train(self, number: int, step: Train) -> StepReport:
        started = time.perf_counter()
        self.shared.listener.begins(number, step.kind, step.training.epochs)
        logs = fit(step, self.now.model, self.shared.train, **self._fit_words(number))
        return self._finish(number, step, started, logs, f"{step.training.epochs} epochs")

    def _prune(self, number: int, step: Prune) -> StepReport:
        started = time.perf_counter()
        shared = self.shared
        shared.listener.begins(number, step.kind, step.training.epochs)
        found = shared.work.find(number, "cut", copy.deepcopy(self._fresh), shared.example)
        if found is None:
            made = self._cut(number, step)
            self.now = Progressed(self.now.model, (*self.now.prunings, made.prunings))
            shared.work.keep(number, "cut", self.now)
        else:
            self.now = found[0]
        logs = fine_tune(step, self.now.model, shared.train, **self._fit_words(number))
        return self._finish(number, step, started, logs, self._widths())

    def _cut(self, number: int, step: Prune) -> Cut:
        try:
            return cut(step, self.now.model, self.shared.train, teacher=self.shared.teacher)
        except BudgetError as error:
            raise BudgetError(error.what, where=self.shared.recipe.where(f"step {number}"), fix=error.fix) from error

    def _widths(self) -> str:
        """Return which layers lost channels, against the model that entered."""
        before = {layer.name: layer.channels for layer in self.done[0].cost.layers if layer.parameters}
        after = cost.measure(self.now.model, self.shared.example).layers
        changed = [
            f"{layer.name} {before[layer.name]}→{layer.channels}"
            for layer in after
            if layer.kind in ("Conv2d", "Linear") and before.get(layer.name, layer.channels) != layer.channels
        ]
        return ", ".join(changed) or "nothing had to go"

    def _finish(self, number: int, step: Step, started: float, logs: tuple[EpochLog, ...], note: str) -> StepReport:
        losses = tuple(log.loss for log in logs)
        report = self._report(number, (step.kind, step.method), started, losses=losses, note=note)
        self.shared.work.keep(number, "done", self.now, report)
        return report

    def _quantize(self, number: int, step: Quantize) -> StepReport:
        started = time.perf_counter()
        self.shared.listener.begins(number, step.kind, 0)
        words: dict[str, Any] = {"observer": step.observer, "percentile": step.percentile}
        self.plan = quantize(self.now.model, self.shared.calibration.x, **words)
        note = f"{len(self.shared.calibration)} calibration samples, plan {self.plan.digest[:12]}"
        return self._report(number, (step.kind, step.method), started, note=note)

    def _report(
        self,
        number: int,
        what: tuple[str, str],
        started: float,
        *,
        losses: Losses = (),
        note: str = "",
        tell: bool = True,
    ) -> StepReport:
        """Measure the present model on validation and add its report."""
        validation, plan = self.shared.validation, self.plan
        logits = self.now.model if plan is None else int8_logits(plan)
        hits = evaluate.hits(logits, validation.x, validation.y)
        compares = self._hits is not None and self.done[-1].method != "untrained"
        change = evaluate.paired_difference(self._hits, hits) if compares and self._hits is not None else None
        score = evaluate.score(int(hits.sum()), hits.size)
        drop = None if self._reference is None else 100 * (self._reference - score.accuracy)
        spent = time.perf_counter() - started
        found = self._cost()
        report = StepReport(number, *what, score, change, drop, found, self._size_kb(), spent, losses, note)
        self._hits = hits
        self.done.append(report)
        if tell:
            self.shared.listener.ends(report, resumed=False)
        return report

    def _cost(self) -> Cost:
        return cost.measure(self.now.model, self.shared.example)

    def _size_kb(self) -> float:
        if self.plan is not None:
            return plan_kb(self.plan)
        return cost.weight_bytes(self.now.model) / 1000
