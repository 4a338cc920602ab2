# SPDX-License-Identifier: Apache-2.0
"""The ``[[check]]`` tables of a recipe: what is read, and that every slip is one line with its fix."""

from pathlib import Path

import pytest

from compress import recipe
from compress.checks.asked import ALWAYS, KINDS, OF_KIND, read_checks
from edge_contract.errors import RecipeError
from tests.compress.conftest import RECIPE

DOCS = (Path(__file__).parents[2] / "docs/checks.md").read_text(encoding="utf-8")


def read(*tables, kind="image"):
    return read_checks(list(tables), "r.toml", kind)


def test_a_recipe_without_tables_is_asked_for_schema_and_leaks():
    assert recipe.parse(RECIPE, Path("r.toml")).checks == ALWAYS


def test_tables_come_after_what_every_run_is_asked_and_may_replace_it():
    text = RECIPE + '[[check]]\nkind = "leakage"\nmax = 3\n[[check]]\nkind = "gap"\nname = "by-heart"\nmax = 4\n'
    found = recipe.parse(text, Path("r.toml")).checks
    assert [(one.kind, one.name) for one in found] == [
        ("schema", "schema"),
        ("leakage", "leakage"),
        ("gap", "by-heart"),
    ]
    assert (found[1].max, found[2].max, found[2].samples, found[2].strict) == (3, 4.0, 2000, False)


WORKS = {
    "slices": {"min": 90, "by": "site", "samples": 5},
    "functionality": {"source": "plates/"},
    "invariance": {"perturbation": "shift", "amount": 2, "max_changed": 5},
    "direction": {"perturbation": "noise", "amount": 0.5},
    "gap": {"max": 5},
    "balance": {"max_ratio": 1.5},
    "leakage": {"coarse": True},
    "schema": {"max_outside": 0.5},
    "calibration-error": {"max": 5, "bins": 10},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_and_stands_in_the_docs(kind):
    found = next(one for one in read({"kind": kind, **WORKS[kind]}) if one.kind == kind)
    assert found.name == kind
    assert f"| `{kind}` |" in DOCS
    for key in vars(found):
        assert key == "name" or f"`{key}`" in DOCS, key


def test_every_perturbation_stands_in_the_docs():
    for kind, names in OF_KIND.items():
        for name in names:
            assert f"| `{name}` |" in DOCS, kind


REFUSED = {
    "nothing asked": ({"kind": "slices"}, "a check that asks nothing; add min, max_drop or both"),
    "kind": ({"kind": "slice", "min": 1}, "unknown value 'slice'; write 'slices'"),
    "key": ({"kind": "gap", "most": 3}, "key 'max' is missing; add max = …"),
    "percent": ({"kind": "gap", "max": 101}, "key 'max': 101 is out of range; give a number from 0 to 100"),
    "against": ({"kind": "slices", "min": 9, "against": "float"}, "nothing is compared; add max_drop, or remove it"),
    "pixels": (
        {"kind": "invariance", "perturbation": "shift", "amount": 1.5, "max_changed": 1},
        "1.5 is no amount of shift; give a whole number of pixels or samples",
    ),
    "no amount": (
        {"kind": "invariance", "perturbation": "noise", "max_changed": 1},
        "key 'amount' is missing",
    ),
    "of sound": (
        {"kind": "direction", "perturbation": "gain", "amount": 1},
        "'gain' of inputs of kind 'image'; use one of brightness, contrast, shift, noise, flip",
    ),
    "name": ({"kind": "gap", "max": 1, "name": "a b"}, "'a b' cannot be typed after --waive"),
    "taken": ({"kind": "gap", "max": 1, "name": "schema"}, "'schema' is the check that every run is asked"),
    "no table": (3, "expected a table, found 3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_slip_is_refused_with_its_fix(case):
    table, words = REFUSED[case]
    with pytest.raises(RecipeError) as refused:
        read(table)
    assert words in str(refused.value)


def test_two_checks_of_one_name_are_refused():
    with pytest.raises(RecipeError, match=r"\[check 2\]: key 'name': 'gap' is another check's too"):
        read({"kind": "gap", "max": 1}, {"kind": "gap", "max": 2})


def test_single_brackets_are_refused():
    with pytest.raises(RecipeError, match=r"expected \[\[check\]\] tables; write \[\[check\]\] in double brackets"):
        read_checks({"kind": "gap"}, "r.toml", "image")


def test_flips_need_no_amount_and_series_none_of_them():
    assert read({"kind": "invariance", "perturbation": "flip", "max_changed": 1})[-1].amount == 0.0
    with pytest.raises(RecipeError, match="'flip' of inputs of kind 'series'"):
        read({"kind": "invariance", "perturbation": "flip", "max_changed": 1}, kind="series")
