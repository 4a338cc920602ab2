# SPDX-License-Identifier: Apache-2.0
"""The process of a launch on an emulated Raspberry Pi 5 with Python 3.13: its answers count, its times mean nothing."""

import pytest

from benchmarks.harness import launch, launching
from benchmarks.plan import plan_for
from tests.edge_agent.runner import bundles
from tests.machines import arm64

pytestmark = [
    pytest.mark.machines,
    pytest.mark.skipif(bool(arm64.missing()), reason=arm64.missing() or "ARM64 is here"),
]


def test_a_launch_passes_its_golden_check_on_arm64(tmp_path, monkeypatch):
    """Only the child is emulated: the parent starts it by the name of its own interpreter."""
    monkeypatch.setattr(launching.sys, "executable", str(arm64.python("cortex-a76", "3.13")))
    folder = bundles.build(tmp_path / "b")
    found = launch(plan_for(folder, runs=10, seconds=0.0, warmup_s=0.0, warmup_cap_s=0.5))
    assert found.golden == "same"
    assert found.runs >= 10 and found.runtime.providers == ("XNNPACK", "CPU")
