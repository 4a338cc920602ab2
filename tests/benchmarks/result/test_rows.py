# SPDX-License-Identifier: Apache-2.0
"""The rows of this repository: measured here, and on an emulated board where only the answers count."""

import numpy as np
import pytest

from benchmarks import results_here
from benchmarks.result import load
from benchmarks.result.check import check
from benchmarks.results_page import page
from edge_agent.runner.model import Model
from edge_contract.errors import MeasurementError
from tests.edge_agent.runner import tiny
from tests.machines import arm64

SHORT = {**results_here.TRIAL, "runs": 30, "launches": 2, "warmup_cap_s": 0.3, "warmup_s": 0.0}


@pytest.fixture(scope="module")
def data(bundle, tmp_path_factory):
    path, images = tmp_path_factory.mktemp("rows") / "few.npz", tiny.images(12, seed=5)
    model = Model.open(bundle, runtime="litert")
    np.savez(path, x=images, y=np.array([model.infer(one).cls for one in images]))
    return path


@pytest.mark.long
def test_rows_are_measured_kept_and_put_on_the_page(bundle, data, tmp_path):
    written = results_here.here([bundle], data, tmp_path, [SHORT])
    assert [path.name.split("-", 1)[1] for path in written] == [
        "litert-t1-single-bare.json",
        "onnxruntime-t1-single-bare.json",
    ]
    for path in written:
        result = load(path)
        check(path, result)
        assert (result.quality.value, result.quality.source, result.golden) == (1.0, "samples", "same")
    text = page(tmp_path)
    assert text.count("| 2 × 30 |") == 2
    assert "100.00 [" in text


@pytest.mark.long
@pytest.mark.machines
def test_an_emulated_board_answers_the_same_and_claims_no_time(bundle, data, tmp_path):
    if reason := arm64.missing():
        pytest.skip(reason)
    for path in results_here.emulated([bundle], data, tmp_path, ["cortex-a72"]):
        result = load(path)
        assert (result.status, result.golden, result.quality.value) == ("correctness", "same", 1.0)
        assert (result.device.board, result.device.arch) == ("emulated cortex-a72", "aarch64")
        assert (result.latency_us, result.cold) == ({}, None)
    assert "no latency\nis claimed" in page(tmp_path)


def test_a_board_that_is_not_there_is_named(bundle, data, tmp_path):
    with pytest.raises(MeasurementError, match=r"python-z80: no emulated board; make machines"):
        results_here.emulated([bundle], data, tmp_path, ["z80"])
