# SPDX-License-Identifier: Apache-2.0
"""Runs a recipe: every step measured on validation, budgets judged there, the test split read once at the end."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Final

from torch import nn

from compress import budget, report_files, sources
from compress.checks import examine, runs
from compress.compressed import CompressedModel
from compress.final import Candidate, candidate, read_agreement, read_test
from compress.listener import Listener, Silent
from compress.processes import here
from compress.recipe import Recipe
from compress.report import CompressionReport
from compress.run_state import RunState, Shared
from compress.splits import SealedSplit, Split, WorkingData
from compress.stopwatches import Stopwatch
from compress.threads import threads
from compress.work import WorkFolder, digest_of
from edge_contract.errors import BudgetError, RecipeError

__all__ = ["rehearse", "run"]

PACKAGES: Final = ("torch", "torch-pruning", "numpy", "strop")


def run(
    recipe: Recipe,
    work: Path,
    *,
    teacher_weights: Path | None = None,
    listener: Listener | None = None,
    stopwatch: Stopwatch | None = None,
    beside: Mapping[str, Candidate] = MappingProxyType({}),
) -> CompressedModel:
    """Run a recipe and return the compressed model.

    Args:
        recipe: What to do.
        work: Folder for the state of the run; a run that was interrupted goes on from what it finds there.
        teacher_weights: In place of ``[model] teacher_weights``.
        listener: Is told about steps and epochs.
        stopwatch: Measures the latency that ``[budget] latency_ms`` judges.
        beside: Further models that are read on the test split along with the result, by name.

    Raises:
        RecipeError: A name in the recipe leads nowhere.
        DataError, ModelError: Data or model are not as they must be.
        BudgetError: A step or the result misses its budget. The steps and a report stay in ``work``, and the test
            split stays closed.
    """
    if recipe.budget.latency_ms is not None and stopwatch is None:
        fix = "remove it, or name a stopwatch: --stopwatch strop.stopwatch:here times on this machine"
        raise RecipeError("key 'latency_ms': nothing measures latency here", where=recipe.where("budget"), fix=fix)
    with threads(recipe.threads):
        return _run(recipe, work, teacher_weights, listener or Silent(), stopwatch, beside=beside)


def rehearse(
    recipe: Recipe,
    work: Path,
    *,
    teacher_weights: Path | None = None,
    listener: Listener | None = None,
    stopwatch: Stopwatch | None = None,
) -> CompressionReport:
    """Run a recipe without its end: every step and the budget, but the test split stays closed.

    Arguments and errors are those of ``run``. Many rehearsals may share one work folder, also at the same time: what a
    step leaves there is named by everything that decides it.
    """
    with threads(recipe.threads):
        data, _sealed = sources.load_answered(recipe, teacher_weights)
        state = _open(recipe, data, work, teacher_weights, listener or Silent())
        draft, _ = _worked(state, _draft(state, data), stopwatch)
    return draft


def _run(
    recipe: Recipe,
    work: Path,
    teacher_weights: Path | None,
    listener: Listener,
    stopwatch: Stopwatch | None,
    *,
    beside: Mapping[str, Candidate],
) -> CompressedModel:
    data, sealed = sources.load_answered(recipe, teacher_weights)
    state = _open(recipe, data, work, teacher_weights, listener)
    draft = _draft(state, data)
    try:
        draft, floating = _worked(state, draft, stopwatch)
    except BudgetError:
        lines = budget.judge(recipe.budget, state.done[-1]) if state.done else ()
        if here().is_first:
            report_files.write(replace(draft, steps=tuple(state.done), budget=lines), work)
        raise
    return _close(state, draft, floating, sealed, data, beside=beside)


def _worked(
    state: RunState, draft: CompressionReport, stopwatch: Stopwatch | None
) -> tuple[CompressionReport, nn.Module]:
    """Run the steps and judge the budget."""
    recipe = state.shared.recipe
    floating = _steps(state)
    latency = None if stopwatch is None else _latency(stopwatch, floating, state)
    lines = budget.judge(recipe.budget, state.done[-1], latency)
    budget.check_total(recipe.budget, lines, state.done, recipe.where("budget"))
    return replace(draft, steps=tuple(state.done), budget=lines), floating


def _latency(stopwatch: Stopwatch, floating: nn.Module, state: RunState) -> float:
    """Return what the first process measures: two clocks could judge the budget differently."""
    processes = here()
    value = stopwatch(floating, state.shared.example, state.plan) if processes.is_first else None
    return float(processes.from_first(value))


def _open(recipe: Recipe, data: WorkingData, work: Path, teacher_weights: Path | None, listener: Listener) -> RunState:
    teacher = sources.load_teacher(recipe, teacher_weights)
    entering = sources.load_model(recipe)
    given = (data.digest, digest_of(entering), digest_of(teacher))
    train = sources.tensors(recipe, data.train)
    labels = sources.labels_for(recipe, entering, train.x[:1], data.labels)
    sources.check_teacher(recipe, teacher, entering, train.x[:1])
    sources.check_kept(recipe, entering)
    examine.prepare(recipe, data, labels)
    share = recipe.data.unlabelled_share
    more = None if data.unlabelled is None else sources.tensors(recipe, Split.unlabelled(data.unlabelled)).x
    shared = Shared(
        recipe,
        train,
        sources.mixed(train, more, share),
        sources.calibrated(sources.tensors(recipe, data.calibration), more, share),
        sources.tensors(recipe, data.validation),
        teacher,
        sources.load_augment(recipe),
        WorkFolder(work, recipe, given),
        listener,
        labels,
    )
    return RunState(shared, copy.deepcopy(entering))


def _steps(state: RunState) -> nn.Module:
    """Run every step and return the float model, from which the plan was made if there is one."""
    state.enter()
    for number, step in enumerate(state.shared.recipe.steps, 1):
        done = state.step(number, step)
        budget.check_step(done, step.max_drop, state.shared.recipe.where(f"step {number}"))
    return state.now.model


def _draft(state: RunState, data: WorkingData) -> CompressionReport:
    recipe, shared = state.shared.recipe, state.shared
    return CompressionReport(
        recipe.name,
        recipe.target,
        recipe.data.metric,
        recipe.seed,
        recipe.digest,
        data.digest,
        digest_of(shared.teacher),
        (),
        versions=tuple((name, metadata.version(name)) for name in sorted(PACKAGES)),
    )


def _close(
    state: RunState,
    draft: CompressionReport,
    floating: nn.Module,
    sealed: SealedSplit,
    data: WorkingData,
    *,
    beside: Mapping[str, Candidate],
) -> CompressedModel:
    """Read the test split, once, and put everything together."""
    recipe, example = state.shared.recipe, state.shared.example
    candidates = {**beside, "float": candidate(floating, example)}
    if state.shared.teacher is not None:
        candidates = {"teacher": candidate(state.shared.teacher, example), **candidates}
    notes = (*sources.notes_of(floating), *data.notes)
    if state.plan is not None or state.rounded is not None:
        name = "int8" if state.plan is not None else state.form
        candidates[name] = replace(candidates["float"], logits=state.logits, size_kb=state.size_kb)
        notes = tuple(dict.fromkeys((*notes, *(() if state.plan is None else state.plan.notes))))
    checks = examine.examine(runs.under_way(state, data, sealed))
    rows, change = read_test(recipe, sealed, candidates)
    new = read_agreement(recipe, sealed.unlabelled, candidates)
    seconds = sum(step.seconds for step in draft.steps)
    metric = "top1" if sealed.is_labelled else recipe.data.metric
    notes = (*notes, *runs.notes_of(checks))
    final = replace(draft, test=rows, change=change, seconds=seconds, notes=notes, test_metric=metric, new=new)
    return CompressedModel(
        recipe.name,
        floating,
        state.plan,
        recipe.preprocess,
        state.shared.labels,
        replace(final, checks=checks),
        recipe.text,
        tuple(int(size) for size in example.shape[1:]),
        recipe.path,
        state.form,
    )
