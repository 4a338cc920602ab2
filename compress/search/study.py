# SPDX-License-Identifier: Apache-2.0
"""The search itself: Optuna proposes, workers try, a journal remembers, the Pareto front answers.

Theory of operation: the parent asks for a trial, writes its recipe and hands it to a worker process; what the worker
finds is told to Optuna and appended to ``trials.jsonl``. All trials share one folder of step results, named by
everything that decides them, so two recipes with the same first steps train them once. An interrupted search starts
from the journal: finished trials are told again, and those under way find their finished steps in the shared folder.
"""

import json
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from compress.recipe import Recipe
from compress.report_parts import Point
from compress.search.order import cheapest_first
from compress.search.space import Choice, Search, varied
from compress.search.task import Result, Rival, Task
from compress.search.workers import Workers
from edge_contract import canonical
from edge_contract.errors import BudgetError, DataError, MissingDependencyError, RecipeError

__all__ = ["Study", "Trial", "front", "search", "winner"]

JOURNAL: Final = "trials.jsonl"
WORK: Final = "steps"
INSTALL: Final = "run: pip install 'strop[search]'"


@dataclass(frozen=True)
class Trial:
    """One recipe that was tried: its number, what was chosen, what came out."""

    number: int
    chosen: dict[str, Any]
    result: Result

    def to_json(self) -> dict[str, Any]:
        return {"number": self.number, "chosen": self.chosen, "result": self.result.to_json()}


@dataclass(frozen=True)
class Study:
    """A finished search.

    Attributes:
        trials: All of them, in order.
        front: Numbers of the complete trials that no other one beats in every objective.
        winner: Number of the most accurate complete trial; a tie goes to the smaller one.
    """

    trials: tuple[Trial, ...]
    front: tuple[int, ...]
    winner: int

    @property
    def points(self) -> tuple[Point, ...]:
        """The complete trials, as a report's page draws them beside the steps of the winner."""
        complete = [(trial.number, trial.result.values) for trial in self.trials if trial.result.state == "complete"]
        costs = ("size_kb", "macs", "latency_ms")
        return tuple(
            Point(f"trial {number}", values["accuracy"], **{key: values[key] for key in costs if key in values})
            for number, values in complete
        )

    def to_json(self) -> dict[str, Any]:
        trials = [trial.to_json() for trial in self.trials]
        return {"schema": "strop.search/1", "trials": trials, "front": list(self.front), "winner": self.winner}


def front(trials: Sequence[Trial], objectives: Sequence[str]) -> tuple[int, ...]:
    """Return the numbers of the complete trials on the Pareto front.

    Example:
        >>> made = [Result("complete", "", {"accuracy": a, "size_kb": s}) for a, s in [(0.9, 9), (0.8, 5), (0.7, 6)]]
        >>> front([Trial(i, {}, one) for i, one in enumerate(made)], ("accuracy", "size_kb"))
        (0, 1)
    """
    complete = [(trial.number, _losses(trial, objectives)) for trial in trials if trial.result.state == "complete"]
    return tuple(number for number, mine in complete if not any(_beats(other, mine) for _, other in complete))


def _losses(trial: Trial, objectives: Sequence[str]) -> tuple[float, ...]:
    values = trial.result.values
    return tuple(-values[name] if name == "accuracy" else values[name] for name in objectives)


def _beats(first: Sequence[float], second: Sequence[float]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def winner(trials: Sequence[Trial], where: str) -> int:
    """Return the number of the most accurate complete trial.

    Raises:
        BudgetError: No trial kept the budget; says what the last ones missed.
    """
    complete = [trial for trial in trials if trial.result.state == "complete"]
    if not complete:
        reasons = "; ".join(dict.fromkeys(trial.result.reason for trial in trials[-3:]))
        what = f"none of {len(trials)} trials kept the budget: {reasons}"
        raise BudgetError(what, where=where, fix="raise the budget, or offer milder choices")
    return max(complete, key=lambda t: (t.result.values["accuracy"], -t.result.values["size_kb"])).number


def search(
    recipe: Recipe,
    folder: Path,
    workers: Workers,
    *,
    teacher_weights: Path | None = None,
    stopwatch: str = "",
    predictor: str = "",
    told: Callable[[Trial, int], None] | None = None,
) -> Study:
    """Try a recipe's choices and return the study; the test split is never read.

    Args:
        recipe: With a ``[search]`` table.
        folder: For the journal and the results of steps; an interrupted search goes on from it.
        workers: Who runs trials: processes of this machine, or Ray's.
        teacher_weights: As in ``pipeline.run``.
        stopwatch: ``module:callable`` of a ``pipeline.Stopwatch``.
        predictor: A file of ``strop bench predict learn``, or ``module:callable``: puts a grid's fastest candidates
            first, and stops those before their training that cannot keep ``latency_ms``.
        told: Hears of every finished trial, with the number asked for.

    Raises:
        RecipeError: No ``[search]`` table, or a choice that leads nowhere.
        BudgetError: No trial kept the budget.
        DataError: The folder belongs to another search.
    """
    settings = recipe.search
    if settings is None:
        fix = "add [search] with [[search.choice]] tables"
        raise RecipeError("no [search] table", where=recipe.path.name, fix=fix)
    if "latency_ms" in settings.objectives and not stopwatch:
        raise RecipeError(
            "key 'objectives': nothing measures latency here", where=recipe.where("search"), fix="drop it"
        )
    weights = "" if teacher_weights is None else str(teacher_weights)
    task = Task("", str(recipe.path), str(folder / WORK), weights, stopwatch, predictor=predictor)
    desk = _Desk(recipe, settings, folder, task)
    desk.run(workers, told)
    done = sorted(desk.trials, key=lambda trial: trial.number)
    return Study(tuple(done), front(done, settings.objectives), winner(done, recipe.where("search")))


class _Desk:
    """Where trials are asked for and told of."""

    def __init__(self, recipe: Recipe, settings: Search, folder: Path, task: Task) -> None:
        self._settings, self._task, self._folder = settings, task, folder
        self._document, self._where = tomllib.loads(recipe.text), recipe.path.name
        first = {choice.key: choice.values[0] for choice in settings.choices}
        varied(self._document, first, where=self._where)  # every path is checked before the first trial
        self._study = _study(settings, recipe.seed)
        self._enqueue(recipe)
        self._space = _distributions(settings.choices)
        self.trials: list[Trial] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = folder / JOURNAL
        self._header = canonical.digest(recipe.text.encode())
        self._restore()

    def _enqueue(self, recipe: Recipe) -> None:
        """Ask for every combination of a grid, the fastest first where somebody predicts."""
        if self._settings.sampler != "grid":
            return
        weights = Path(self._task.teacher_weights) if self._task.teacher_weights else None
        predictor = self._task.predictor
        for place in cheapest_first(self._document, recipe.path, self._settings.choices, predictor, weights):
            self._study.enqueue_trial(place)

    def _restore(self) -> None:
        if not self._journal.exists():
            self._append({"recipe": self._header})
            return
        lines = self._journal.read_text(encoding="utf-8").splitlines()
        try:
            header, *entries = [json.loads(line) for line in lines if line.endswith("}")]
            trials = [Trial(e["number"], e["chosen"], Result.from_json(e["result"])) for e in entries]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError("no journal of a search", where=str(self._journal), fix="name another folder") from error
        if header.get("recipe") != self._header:
            fix = "name another folder, or give --overwrite to start again"
            raise DataError("another search, or its recipe has changed", where=str(self._folder), fix=fix)
        for trial in trials:
            self._study.add_trial(_frozen(trial, self._settings, self._space))
            self.trials.append(trial)

    def _append(self, entry: dict[str, Any]) -> None:
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, sort_keys=True) + "\n")

    def run(self, workers: Workers, told: Callable[[Trial, int], None] | None) -> None:
        """Keep all workers busy until there are as many trials as were asked for."""
        running: dict[Future[Result], tuple[int, dict[str, Any], Any]] = {}
        questions = self._questions()
        try:
            while True:
                while len(running) < workers.count and (asked := next(questions, None)) is not None:
                    running[workers.submit(self._task_of(asked[1]))] = asked
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    number, chosen, frozen = running.pop(future)
                    self._tell(Trial(number, chosen, future.result()), frozen)
                    if told is not None:
                        told(self.trials[-1], self._settings.trials)
        finally:
            workers.stop()

    def _questions(self) -> Iterator[tuple[int, dict[str, Any], Any]]:
        known = {json.dumps(trial.chosen, sort_keys=True) for trial in self.trials}
        size = 1
        for choice in self._settings.choices:
            size *= len(choice.values)
        number = 1 + max((trial.number for trial in self.trials), default=-1)
        repeats = 0
        while number < self._settings.trials and len(known) < size and repeats < 20 * size:
            asked = self._study.ask(self._space)
            chosen = {choice.key: choice.values[asked.params[choice.key]] for choice in self._settings.choices}
            text = json.dumps(chosen, sort_keys=True)
            if text in known:  # a recipe has one result; trying it again would teach nothing
                self._study.tell(asked, state=_optuna().trial.TrialState.FAIL)
                repeats += 1
                continue
            known.add(text)
            yield number, chosen, asked
            number += 1

    def _task_of(self, chosen: dict[str, Any]) -> Task:
        import tomli_w

        text = tomli_w.dumps(varied(self._document, chosen, where=self._where))
        complete = [trial.result for trial in self.trials if trial.result.state == "complete"]
        rivals = tuple(Rival(r.values["size_kb"], int(r.values["macs"]), r.steps) for r in complete)
        return replace(self._task, text=text, rivals=rivals)

    def _tell(self, trial: Trial, asked: Any) -> None:
        self.trials.append(trial)
        self._append(trial.to_json())
        if trial.result.state == "complete":
            self._study.tell(asked, [trial.result.values[name] for name in self._settings.objectives])
        else:
            self._study.tell(asked, state=_optuna().trial.TrialState.FAIL)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingDependencyError("a search needs the package 'optuna'", fix=INSTALL) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _study(settings: Search, seed: int) -> Any:
    optuna = _optuna()
    samplers = optuna.samplers
    sampler = {
        "tpe": lambda: samplers.TPESampler(seed=seed, n_startup_trials=min(10, max(3, settings.trials // 3))),
        "nsga2": lambda: samplers.NSGAIISampler(seed=seed, population_size=max(4, min(20, settings.trials // 3))),
        "random": lambda: samplers.RandomSampler(seed=seed),
        "grid": lambda: samplers.RandomSampler(seed=seed),
    }[settings.sampler]()
    directions = ["maximize" if name == "accuracy" else "minimize" for name in settings.objectives]
    return optuna.create_study(sampler=sampler, directions=directions)


def _distributions(choices: Sequence[Choice]) -> dict[str, Any]:
    """Choices are told to Optuna by their place in the list, so that a journal holds any value."""
    kind = _optuna().distributions.CategoricalDistribution
    return {choice.key: kind(list(range(len(choice.values)))) for choice in choices}


def _frozen(trial: Trial, settings: Search, space: dict[str, Any]) -> Any:
    optuna = _optuna()
    places = {choice.key: list(choice.values).index(trial.chosen[choice.key]) for choice in settings.choices}
    if trial.result.state != "complete":
        return optuna.trial.create_trial(params=places, distributions=space, state=optuna.trial.TrialState.FAIL)
    values = [trial.result.values[name] for name in settings.objectives]
    return optuna.trial.create_trial(params=places, distributions=space, values=values)
