# SPDX-License-Identifier: Apache-2.0
"""The page of pains names tests that exist, and leaves none of the eighteen without an answer or a plain *not yet*."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "pains.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ADR = re.compile(r"\[ADR \d+\]\((adr/\d{4}-[\w-]+\.md)\)")


def rows(text):
    """Return the cells of each numbered row: number → pain, answer, proof."""
    cells = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in text.splitlines()]
    return {int(row[0]): row[1:] for row in cells if row[0].isdigit()}


@cache
def names(path):
    """Return the tests at the top of a file: functions, classes, and cases that are made by an assignment."""
    found = set()
    for node in ast.parse((ROOT / path).read_text("utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in found if name.lower().startswith("test")}


def faults(row):
    """Return what is wrong with the proof of one row."""
    proof = row[2]
    tests, decisions = TEST.findall(proof), ADR.findall(proof)
    wrong = [f"{path}::{name}" for path, name in tests if not (ROOT / path).is_file() or name not in names(path)]
    wrong += [path for path in decisions if not (PAGE.parent / path).is_file()]
    if proof.count("::") != len(tests):
        wrong.append("a test that is not written as `tests/path.py::name`")
    if not (tests or decisions or "not yet" in proof):
        wrong.append("neither a test nor a decision nor 'not yet'")
    return wrong


ROWS = rows(PAGE.read_text("utf-8"))


def test_all_eighteen_are_there_once_and_in_order():
    assert list(ROWS) == list(range(1, 19))
    assert all(len(row) == 3 and all(row) for row in ROWS.values())


@pytest.mark.parametrize("number", ROWS)
def test_a_pain_has_a_proof_that_exists(number):
    assert faults(ROWS[number]) == []


@pytest.mark.parametrize(
    ("proof", "fault"),
    [
        ("", "neither a test"),
        ("`tests/house/test_pains.py::test_nowhere`", "test_pains.py::test_nowhere"),
        ("`tests/house/nobody.py::test_it`", "nobody.py::test_it"),
        ("tests/house/test_pains.py::test_plain", "a test that is not written as"),
        ("[ADR 99](adr/0099-none.md)", "adr/0099-none.md"),
    ],
)
def test_a_proof_that_is_none_is_found(proof, fault):
    assert any(fault in found for found in faults(["pain", "answer", proof]))
