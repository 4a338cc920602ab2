# SPDX-License-Identifier: Apache-2.0
"""What all tests share: in CI nothing is skipped, and no property test depends on the speed of the machine."""

import os
from collections.abc import Iterator

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
