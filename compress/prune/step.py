# SPDX-License-Identifier: Apache-2.0
"""The recipe's ``prune`` step: score, choose, remove, re-estimate, fine-tune."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from compress.fine_tune import tuning_loss
from compress.latency import LatencyTable
from compress.prune.batch_norm import reestimate
from compress.prune.graph import Pruning, PruningGraph
from compress.prune.ledger import Ledger
from compress.prune.schedule import Limits, choose
from compress.prune.scores import score
from compress.sources import Tensors
from compress.steps import Prune

__all__ = ["Cut", "Totals", "cut", "totals"]


Totals = Mapping[str, float]
"""Cost in its unit (MACs, parameters, milliseconds), by kind."""


@dataclass(frozen=True)
class Cut:
    """What was removed: the replayable record, and each group's width before and after."""

    prunings: tuple[Pruning, ...]
    widths: dict[str, tuple[int, int]]

    @property
    def note(self) -> str:
        """One line for the report."""
        return ", ".join(f"{name} {old}→{new}" for name, (old, new) in self.widths.items() if old != new)


def totals(step: Prune, model: nn.Module, example: Tensor, *, table: LatencyTable | None = None) -> Totals:
    """Return the costs that a step's target speaks of, of a model as it is.

    Raises:
        MeasurementError: Latency is asked for, and the table cannot be read or lacks a layer.
    """
    ledger = Ledger(model, example, (), _table(step, table))
    return {kind: ledger.total(kind, {}) for kind in step.target}


def _table(step: Prune, table: LatencyTable | None) -> LatencyTable | None:
    if table is None and "latency" in step.target and step.table:
        return LatencyTable.load(Path(step.table))
    return table


def cut(
    step: Prune,
    model: nn.Module,
    data: Tensors,
    *,
    teacher: nn.Module | None = None,
    full: Totals | None = None,
    table: LatencyTable | None = None,
) -> Cut:
    """Remove channels in place until the step's target is met, and re-estimate the normalisations.

    Args:
        step: Criterion, target, limits.
        model: Pruned in place.
        data: The training split; its first ``step.samples`` inputs give gradients and statistics.
        teacher: If the step distils, the loss of the Taylor criterion includes its answers.
        full: What the target's shares refer to: ``totals`` before the first stage; None: the model as it is now.
        table: The latency table; None: the file that the step names.

    Raises:
        BudgetError: The target cannot be met within the limits; says what came closest.
        MeasurementError: The latency table cannot be read, or lacks a layer.
        UnsupportedOperatorError: A layer that pruning does not handle, by name.
    """
    example, found = data.x[:1], _table(step, table)
    reference = full or totals(step, model, example, table=found)
    graph = PruningGraph(model, example, step.keep)
    targets = {kind: share * reference[kind] for kind, share in step.target.items()}
    limits = Limits(targets, reference, step.round_to, step.most, step.scope)
    part = Tensors(data.x[: step.samples], data.y[: step.samples])
    scores = score(step.method, model, part, graph.groups, tuning_loss(step, teacher))
    chosen = choose(Ledger(model, example, graph.groups, found), scores, limits)
    widths = {g.name: (g.width, g.width - len(chosen.get(g.name, ()))) for g in graph.groups}
    prunings = tuple(graph.remove(name, channels) for name, channels in chosen.items())
    reestimate(model, part.x)
    return Cut(prunings, widths)
