# SPDX-License-Identifier: Apache-2.0
"""What all tests share: in CI nothing is skipped, and no property test depends on the speed of the machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Shared machines stop for a second now and then, so a deadline per example would fail at random. In CI the
# same examples are drawn each time: a red run must mean a change.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")

_REFUSAL = "skipped, but in CI nothing may be skipped: install what is missing (strop doctor says how). Reason: "


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure; an expected failure is reported as skipped too and stays."""
    if os.environ.get("CI") and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = _REFUSAL + reason


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Look at each phase of each test."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """Look at modules that skip themselves as a whole, as ``pytest.importorskip`` does."""
    report = yield
    _refuse_skip(report)
    return report


# Minutes of the twenty that the whole suite may take on two cores; printed, never asserted: machines differ.
SHARES = {"compress": 5, "export": 5, "edge_agent": 4, "fleet": 4}
REST = 2
_spent: dict[str, float] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add a phase's time to its folder; doctests of a package count with its tests."""
    parts = Path(report.nodeid.split("::")[0]).parts
    folder = parts[1] if parts[0] == "tests" and len(parts) > 2 else parts[0]
    _spent[folder] = _spent.get(folder, 0.0) + report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what each folder took of its share."""
    terminalreporter.section("time by folder")
    rest = sum(seconds for folder, seconds in _spent.items() if folder not in SHARES)
    rows = [(folder, _spent.get(folder, 0.0), minutes) for folder, minutes in SHARES.items()]
    for folder, seconds, minutes in [*rows, ("all others", rest, REST)]:
        terminalreporter.write_line(f"{folder:<12} {seconds:6.0f} s of {60 * minutes} s")
