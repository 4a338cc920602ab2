# SPDX-License-Identifier: Apache-2.0
"""A share of the agent's own tests on emulated ARM64, Python 3.11 and 3.13; ``make test-arm64`` runs all of them."""

import sys

import pytest

from tests.machines import agent_tests, arm64
from tests.machines.unpacked import ROOT


@pytest.mark.machines
@pytest.mark.skipif(bool(arm64.missing()), reason=arm64.missing() or "ARM64 is here")
def test_a_share_of_the_agent_s_tests_passes_on_both_pythons(tmp_path):
    outcomes = agent_tests.run(agent_tests.FEW, tmp_path)
    assert set(outcomes) == set(arm64.PYTHONS) == {"3.11", "3.13"}
    for version, outcome in outcomes.items():
        assert outcome.code == 0, f"Python {version}\n{outcome.text[-3000:]}"
        assert outcome.count("failed") == outcome.count("skipped") == 0
        assert outcome.count("passed") >= agent_tests.FEW_LEAST
    assert len({outcome.count("passed") for outcome in outcomes.values()}) == 1


def test_what_is_named_exists():
    for name in (*agent_tests.ALL, *agent_tests.FEW, *agent_tests.LEFT_OUT):
        path, _, test = name.partition("::")
        assert (ROOT / path).exists(), name
        assert f"def {test}" in (ROOT / path).read_text("utf-8") if test else True, name


def test_a_failure_is_counted_and_told(tmp_path, monkeypatch):
    """With this very Python in the place of an emulated one."""
    monkeypatch.setattr(agent_tests.arm64, "python", lambda cpu, version: sys.executable)
    test = tmp_path / "test_it.py"
    test.write_text("def test_a(): ...\n\ndef test_b():\n    assert 0, 'no'\n")
    outcome = agent_tests.run([str(test)], tmp_path, ["3.11"])["3.11"]
    assert (outcome.code, outcome.count("passed"), outcome.count("failed")) == (1, 1, 1)
    assert "no" in outcome.text


def test_without_boards_the_line_to_run_is_said(monkeypatch, capsys):
    monkeypatch.setattr(agent_tests.arm64, "missing", lambda: ".arm64 is missing: make machines")
    assert agent_tests.main(["--few"]) == 1
    assert capsys.readouterr().err == "error: .arm64 is missing: make machines\n"
