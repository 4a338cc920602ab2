# SPDX-License-Identifier: Apache-2.0
"""The real harness on real agents: ``run_on`` brings results home, and names the board that gave none."""

import hashlib
import json

import pytest

from benchmarks.fleet import remote
from benchmarks.result import load
from edge_contract.errors import MeasurementError, UsageError

pytestmark = pytest.mark.broker
WARM = {"warmup_s": 0.0, "warmup_runs": 2, "warmup_cap_s": 0.2, "cooldown_s": 0.0}
QUICK = {"launches": 1, "runs": 20, "seconds": 0.0, **WARM}


def test_results_of_boards_come_home_and_a_board_without_one_is_named(fleet, device, tmp_path):
    device("pc-1")
    device("pc-2", bench="allow = true")
    told, out = [], tmp_path / "results"
    model = str(fleet.bundle / "model.tflite")
    found = remote.run_on("device:pc-*", model, QUICK, data=fleet.data, out=out, tell=told.append, named=told.append)
    assert len(found) == 1
    assert found[0].runtime.name == "litert"
    assert found[0].counts.launches == 1
    assert found[0].artifact.sha256 == hashlib.sha256((fleet.bundle / "model.tflite").read_bytes()).hexdigest()
    path = next(out.rglob("*.json"))
    assert load(path).raw.file == f"{path.stem}.bin"
    assert path.with_suffix(".bin").stat().st_size > 0
    text = "\n".join(told)
    assert "pc-1: measuring" in text or "pc-1: done" in text
    assert "pc-2 gave no result: refused: benchmark" in text
    assert "unregistered = true" in text
    assert "litert" in json.dumps(found[0].record.plan)
    assert found[0].device.board in remote.table(found)
    registered = remote.run_on("device:pc-2", str(fleet.bundle), QUICK, data=fleet.data, tell=told.append)
    assert registered[0].artifact.bundle == fleet.version["bundle"]


def test_what_only_a_device_decides_is_refused_before_anything_is_asked(fleet):
    with pytest.raises(UsageError, match="--runtime with --on"):
        remote.run_on("all", "compass", {"runtime": "litert"}, data=fleet.data)
    with pytest.raises(UsageError, match="no device fits"):
        remote.run_on("device:nobody", "compass", {}, data=fleet.data)


def test_no_result_at_all_is_an_error_that_names_the_first_reason(fleet, closed):
    with pytest.raises(MeasurementError, match=r"closed: refused: .*not allowed"):
        remote.run_on("device:closed", "compass:1.0.0", {}, data=fleet.data, tell=lambda line: None)
