# SPDX-License-Identifier: Apache-2.0
"""One run of a recipe: what its steps share, and what they have reached so far."""

import copy
import time
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from compress import cost, evaluate, memory
from compress.cluster import step as cluster
from compress.distill.step import fit
from compress.edits import Edit
from compress.factorize.step import described
from compress.final import int8_logits, plan_kb
from compress.fine_tune import fine_tune
from compress.listener import Listener
from compress.quantize import weight_only
from compress.quantize.plan import QuantizationPlan
from compress.quantize.smooth import smoothed
from compress.quantizing import Bench, quantized
from compress.recipe import Recipe
from compress.report import StepReport
from compress.report_parts import pack
from compress.restructure import Restructuring, Stage
from compress.sources import Tensors
from compress.sparsify import step as sparsify
from compress.sparsify.masks import held_zeros
from compress.steps import Cluster, Distill, Factorize, Prune, Quantize, Sparsify, Step, Train
from compress.steps.quantize import PLANNED
from compress.trainer import AfterStep, Augment
from compress.work import Progressed, WorkFolder
from edge_contract.errors import BudgetError

__all__ = ["RunState", "Shared"]

Losses = tuple[float, ...]
WIDTHS_OF = ("Conv", "Linear")
"""How the kinds of layers begin whose width a report speaks of."""


@dataclass(frozen=True)
class Shared:
    """What every step of a run may use; there is no test split in it.

    ``mixed`` is the training split with the inputs without labels in it, for whatever follows the teacher.
    """

    recipe: Recipe
    train: Tensors
    mixed: Tensors
    calibration: Tensors
    validation: Tensors
    teacher: nn.Module | None
    augment: Augment | None
    work: WorkFolder
    listener: Listener
    labels: tuple[str, ...] = ()

    @property
    def example(self) -> Tensor:
        """One input, float32 [1,C,H,W]."""
        return self.train.x[:1]


class RunState:
    """The model as it is after the last step, and the report of every step.

    Attributes:
        now: The float model.
        plan: The int8 model, after a quantize step.
        form, rounded: How the weights are rounded where there is no plan, and the network that answers so.
        done: Reports, the entering model first.
    """

    def __init__(self, shared: Shared, entering: nn.Module) -> None:
        self.shared = shared
        self._fresh = copy.deepcopy(entering)
        self.now = Progressed(entering)
        self.plan: QuantizationPlan | None = None
        self.form = "float32"
        self.rounded: nn.Module | None = None
        self.done: list[StepReport] = []
        self._hits: evaluate.Hits | None = None
        self._reference: float | None = None

    def enter(self) -> None:
        """Measure the model as it enters the recipe."""
        started = time.perf_counter()
        self._report(0, ("enter", "weights" if self.shared.recipe.model.is_trained else "untrained"), started)
        if self.shared.recipe.model.is_trained:
            self._reference = self.done[-1].score.accuracy
            self.done[-1] = replace(self.done[-1], drop=0.0)

    def step(self, number: int, step: Step) -> StepReport:
        """Run one step, or take it from the work folder, and return its report."""
        if not isinstance(step, Train) and self._reference is None:
            # The recipe trained its own model: what lossy steps lose is counted from there.
            self._reference = self.done[-1].score.accuracy
        if isinstance(step, Quantize):
            return (self._quantize if step.method in PLANNED else self._round)(number, step)
        found = self.shared.work.find(number, "done", copy.deepcopy(self._fresh), self.shared.example)
        if found is not None:
            return self._resume(number, step, *found)
        if isinstance(step, Prune | Factorize):
            return self._restructure(number, step)
        return self._train(number, step)

    def _resume(self, number: int, step: Step, after: Progressed, saved: dict[str, Any]) -> StepReport:
        self.now = after
        old = StepReport.from_json(saved)
        report = self._report(
            number, (step.kind, step.method), time.perf_counter(), losses=old.losses, note=old.note, tell=False
        )
        self.done[-1] = report = replace(report, seconds=old.seconds)
        self.shared.listener.ends(report, resumed=True)
        return report

    def _fit_words(self, number: int, stage: int = 0) -> dict[str, Any]:
        shared = self.shared
        return {
            "seed": shared.recipe.seed + number + 1000 * stage,
            "teacher": shared.teacher,
            "augment": shared.augment,
            "checkpoint": shared.work.training(number, stage),
            "progress": shared.listener.epoch,
        }

    def _train(self, number: int, step: Train | Sparsify | Cluster) -> StepReport:
        started = time.perf_counter()
        self.shared.listener.begins(number, step.kind, step.training.epochs)
        model, words, data = self.now.model, self._fit_words(number), self._data(step)
        if isinstance(step, Sparsify):
            logs = sparsify.sparsify(step, model, data, **words)
            note = sparsify.described(model)
        elif isinstance(step, Cluster):
            logs = cluster.cluster(step, model, data, **words)
            note = cluster.described(model)
        else:
            logs = fit(step, model, data, after_step=self._holding(number), **words)
            note = f"{step.training.epochs} epochs"
        return self._finish(number, step, started, tuple(log.loss for log in logs), note)

    def _data(self, step: Train | Sparsify | Cluster | Prune | Factorize) -> Tensors:
        """Return what a step trains on: inputs without labels too, if it follows a teacher."""
        shared = self.shared
        follows = isinstance(step, Distill) or (
            not isinstance(step, Train) and step.distill and shared.teacher is not None
        )
        return shared.mixed if follows else shared.train

    def _holding(self, number: int) -> AfterStep | None:
        """Return what keeps the zeros that an earlier step made."""
        earlier = self.shared.recipe.steps[: number - 1]
        return held_zeros(self.now.model) if any(isinstance(step, Sparsify) for step in earlier) else None

    def _restructure(self, number: int, step: Prune | Factorize) -> StepReport:
        """Cut and fine-tune, stage by stage; what is cut is kept before its fine-tuning begins."""
        started = time.perf_counter()
        shared = self.shared
        work = Restructuring(step, self.now.model, shared.example, shared.recipe.path.parent)
        shared.listener.begins(number, step.kind, sum(stage.training.epochs for stage in work.stages))
        first, losses = self._last_cut(number, len(work.stages))
        for index in range(max(first, 0), len(work.stages)):
            stage = work.stages[index]
            if index != first:
                edit = self._cut(number, work, stage)
                self.now = Progressed(self.now.model, (*self.now.edits, edit))
                shared.work.keep(number, f"cut-{index}", self.now, {"losses": list(losses)})
            words = {**self._fit_words(number, index), "after_step": self._holding(number)}
            logs = fine_tune(stage, self.now.model, self._data(step), **words)
            losses = (*losses, *(log.loss for log in logs))
        note = self._widths()
        if isinstance(step, Factorize):
            note = described(self.now.edits[-1].changes)
        return self._finish(number, step, started, losses, note)

    def _last_cut(self, number: int, count: int) -> tuple[int, Losses]:
        """Return the last stage of which an earlier run left the cut (then it is the present model), or -1."""
        for index in reversed(range(count)):
            found = self.shared.work.find(number, f"cut-{index}", copy.deepcopy(self._fresh), self.shared.example)
            if found is not None:
                self.now, facts = found
                return index, tuple(facts["losses"])
        return -1, ()

    def _cut(self, number: int, work: Restructuring, stage: Stage) -> Edit:
        try:
            return work.edit(stage, self.now.model, self.shared.train, self.shared.teacher)
        except BudgetError as error:
            raise BudgetError(error.what, where=self.shared.recipe.where(f"step {number}"), fix=error.fix) from error

    def _widths(self) -> str:
        """Return which layers lost channels, against the model that entered."""
        before = {layer.name: layer.channels for layer in self.done[0].cost.layers if layer.parameters}
        after = cost.measure(self.now.model, self.shared.example).layers
        changed = [
            f"{layer.name} {before[layer.name]}→{layer.channels}"
            for layer in after
            if layer.kind.startswith(WIDTHS_OF) and before.get(layer.name, layer.channels) != layer.channels
        ]
        return ", ".join(changed) or "nothing had to go"

    def _finish(self, number: int, step: Step, started: float, losses: Losses, note: str) -> StepReport:
        report = self._report(number, (step.kind, step.method), started, losses=losses, note=note)
        self.shared.work.keep(number, "done", self.now, report.to_json())
        return report

    def _quantize(self, number: int, step: Quantize) -> StepReport:
        started = time.perf_counter()
        self.shared.listener.begins(number, step.kind, 0)
        shared = self.shared
        bench = Bench(
            self.now.model,
            shared.mixed,
            shared.calibration,
            shared.validation,
            self._reference or 0.0,
            next((one.clusters for one in shared.recipe.steps if isinstance(one, Cluster)), 0),
            shared.teacher,
            shared.augment,
            shared.recipe.seed + number,
            shared.work.training(number),
            shared.listener.epoch,
        )
        made = quantized(step, bench)
        self.plan = made.plan
        note = f"{len(self.shared.calibration)} calibration samples, plan {self.plan.digest[:12]}"
        report = self._report(number, (step.kind, step.method), started, note=note, tell=False)
        peak = memory.peak(made.graph).kb(8)
        report = replace(report, peak_kb=peak, ladder=made.ladder, fidelity=made.fidelity, sensitivity=made.sensitivity)
        self.done[-1] = report
        self.shared.listener.ends(report, resumed=False)
        return report

    def _round(self, number: int, step: Quantize) -> StepReport:
        """Round the weights of a network that no plan can hold."""
        started = time.perf_counter()
        self.shared.listener.begins(number, step.kind, 0)
        self.form = step.method
        model = smoothed(self.now.model, self.shared.calibration.x, step.smooth)
        self.now = replace(self.now, model=model)
        self.rounded = weight_only.simulate(model, self.form)
        note = f"{self.form}: the graph stays float" + ("" if step.smooth is None else f", smoothed by {step.smooth:g}")
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
        validation = self.shared.validation
        hits = evaluate.hits(self.logits, validation.x, validation.y)
        compares = self._hits is not None and self.done[-1].method != "untrained"
        change = evaluate.paired_difference(self._hits, hits) if compares and self._hits is not None else None
        score = evaluate.score(int(hits.sum()), hits.size)
        drop = None if self._reference is None else 100 * (self._reference - score.accuracy)
        spent = time.perf_counter() - started
        found = cost.measure(self.now.model, self.shared.example)
        report = StepReport(number, *what, score, change, drop, found, self.size_kb, spent, losses, note)
        report = replace(report, zipped_kb=self._zipped_kb(), hits=pack(hits))
        self._hits = hits
        self.done.append(report)
        if tell:
            self.shared.listener.ends(report, resumed=False)
        return report

    @property
    def logits(self) -> evaluate.Logits:
        """What answers: the plan's integers, the network with rounded weights, or the float network."""
        if self.plan is not None:
            return int8_logits(self.plan)
        return self.now.model if self.rounded is None else self.rounded

    @property
    def size_kb(self) -> float:
        """Bytes of the weights in the form that is shipped, divided by 1 000."""
        if self.plan is not None:
            return plan_kb(self.plan, self.shared.recipe.target)
        if self.rounded is not None:
            return weight_only.stored_bytes(self.now.model, self.form) / 1000
        return cost.weight_bytes(self.now.model) / 1000

    def _zipped_kb(self) -> float | None:
        if self.rounded is not None:
            return None  # its file is written, and measured, by the exporter
        return memory.zipped_kb(self.now.model if self.plan is None else self.plan)
