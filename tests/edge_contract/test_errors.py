# SPDX-License-Identifier: Apache-2.0
"""The error tree: drawn in its own module and in docs/errors.md as it is, one line per error, two exit codes."""

import inspect
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import errors
from edge_contract.errors import StropError, UsageError

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, StropError)]
DOCS = Path(__file__).parents[2] / "docs"


def tree_of(text):
    """Read the drawn tree: name → its parent's name; four columns are one level."""
    lines = [re.match(r"^([ │├└─]*)([A-Z][A-Za-z]*Error)\b", line) for line in text.splitlines()]
    found = [(len(match[1]), match[2]) for match in lines if match]
    margin = found[0][0]
    parents, stack = {}, []
    for column, name in found:
        del stack[(column - margin) // 4 :]
        parents[name] = stack[-1] if stack else ""
        stack.append(name)
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    expected = {k.__name__: "" if k is StropError else k.__mro__[1].__name__ for k in ALL}
    assert tree_of(errors.__doc__) == expected


def test_the_page_has_the_same_tree():
    assert tree_of((DOCS / "errors.md").read_text("utf-8")) == tree_of(errors.__doc__)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_each_error_says_in_its_docstring_what_it_means_and_leaves_with_1_or_2(kind):
    assert kind.__doc__
    assert kind("x").exit_code == (2 if issubclass(kind, UsageError) else 1)


@given(st.text(), st.text(), st.text())
def test_a_message_is_one_line_with_where_and_fix(what, where, fix):
    error = StropError(what, where=where, fix=fix)
    assert len(str(error).splitlines()) <= 1
    assert (error.what, error.where, error.fix) == (what, where, fix)


def test_the_parts_stand_in_their_places():
    assert str(StropError("what", where="where", fix="fix")) == "where: what; fix"
    assert str(StropError("what")) == "what"
    assert str(StropError("two\nlines\r\nor\u2028three")) == "two lines or three"


def test_an_error_survives_the_way_out_of_another_process():
    error = pickle.loads(pickle.dumps(errors.RecipeError("unknown key", where="a.toml", fix="remove it")))
    assert (str(error), error.fix, error.exit_code) == ("a.toml: unknown key; remove it", "remove it", 2)
