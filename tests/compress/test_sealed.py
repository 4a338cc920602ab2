# SPDX-License-Identifier: Apache-2.0
"""No step of any kind reads the test split: it is a thing that fails at every touch until the end opens it."""

from dataclasses import replace

import numpy as np
import pytest

from compress import dry_run, pipeline, recipe
from compress.listener import Silent
from compress.sources import answers, data
from compress.splits import SealedSplit, Split
from compress.steps import KINDS
from edge_contract.errors import BudgetError

STEPS = {
    "train": "epochs = 1",
    "distill": "epochs = 1",
    "prune": "epochs = 1\ntarget = { macs = 0.9 }\nround_to = 1",
    "factorize": "epochs = 1\ntarget = { macs = 0.95 }\nround_to = 1",
    "sparsify": 'epochs = 1\nmethod = "magnitude"',
    "cluster": "epochs = 1\nleast = 16",
    "quantize": "",
}
"""The shortest step of every kind; a new kind needs a line here."""


class Touched(AssertionError):
    """Somebody read the test split."""


class Closed(SealedSplit):
    """A sealed split of which everything but ``open`` fails, and that notes when it was opened."""

    def __init__(self, split: Split, events: list[str]) -> None:
        self.__dict__.update(_inside=split, events=events, openings=0)

    @property
    def _split(self) -> Split:
        if not self.openings:
            raise Touched("the test split was read before it was opened")
        return self._inside

    def digests(self, of):
        """The search for leaks may ask for digests; that it does so after the last step, the events show."""
        self.events.append("digests")
        return of(self._inside.x)

    def open(self) -> Split:
        if self.openings:
            raise Touched("the test split was opened twice")
        self.__dict__["openings"] += 1
        self.events.append("opened")
        return self._inside


class Note(Silent):
    def __init__(self, events):
        self.events = events

    def ends(self, done, *, resumed):
        self.events.append(done.kind)


@pytest.fixture
def events(monkeypatch):
    """What happened in order: data loaded, steps ended, test split opened. No step can reach the test split."""
    found = []
    separate = data.separate

    def watched(splits, **words):
        found.append("loaded")
        work, _ = separate(splits, **words)
        return work, Closed(splits.test, found)

    monkeypatch.setattr(data, "separate", watched)
    return found


def written(kitchen, *steps, budget=""):
    head = kitchen.text[: kitchen.text.index("[[step]]")]
    tables = (f'[[step]]\nkind = "{kind}"\n{STEPS[kind]}\n' for kind in steps)
    return recipe.load(kitchen(head + "".join(tables) + budget))


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_step_reads_the_test_split(kind, kitchen, events, tmp_path):
    steps = [kind] if kind in ("train", "distill") else ["train", kind]
    pipeline.run(written(kitchen, *steps), tmp_path / "work", listener=Note(events))
    assert events == ["loaded", "enter", *steps, "digests", "opened"]


def test_missed_budget_and_dry_run_leave_it_closed(kitchen, events, tmp_path):
    with pytest.raises(BudgetError):
        pipeline.run(written(kitchen, "train", budget="[budget]\nparameters = 1"), tmp_path / "work")
    dry_run.dry_run(written(kitchen, *(kind for kind in KINDS if kind != "cluster")))
    assert events == ["loaded", "loaded"]


def test_touching_it_would_have_shown(events):
    sealed = Closed(Split(np.zeros((3, 2, 2)), np.arange(3)), events)
    with pytest.raises(Touched):
        len(sealed)
    assert len(sealed.open()) == len(sealed) == 3
    with pytest.raises(Touched):
        sealed.open()


def test_labels_by_agreement_leave_it_closed_too(kitchen, events, tmp_path):
    found = written(kitchen, "train")
    found = replace(found, data=replace(found.data, metric="agreement"))
    _, sealed = answers.load_answered(found)
    assert not sealed.openings and events == ["loaded"]
