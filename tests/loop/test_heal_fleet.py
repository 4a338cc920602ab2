# SPDX-License-Identifier: Apache-2.0
"""The whole loop with a real fleet, training and devices: ``python -m examples.heal.fleet`` keeps its word."""

import json
import shutil

import pytest
from rich.console import Console

from edge_contract.errors import MissingDependencyError
from examples.heal import data, fleet


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_strop_loop_run_heals_two_cameras_without_labels_and_without_a_person(tmp_path):
    if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None:
        pytest.skip("no mosquitto: apt-get install mosquitto")
    try:
        data.load()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    facts = fleet.tell(tmp_path / "story", Console(quiet=True), wanted=1500)
    assert facts["run"]["state"] == "healed"
    assert len(facts["run"]["lineage"]["rollouts"]) == 2
    for name in fleet.STRAYS:
        before, after = facts["before"][name]["true_accuracy"], facts["after"][name]["true_accuracy"]
        assert after - before > 0.1, name
    train = facts["train"]
    assert train["old_accuracy"]["accuracy"] >= train["old_accuracy_before"]["accuracy"] - 0.01
    assert train["new_agreement"]["accuracy"] > train["new_agreement_before"]["accuracy"]
    assert json.loads((tmp_path / "story" / "summary.json").read_text())["run"]["state"] == "healed"
