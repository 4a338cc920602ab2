# SPDX-License-Identifier: Apache-2.0
"""The page of patches shows what was measured, and what was measured keeps its promises."""

import json

import pytest

from benchmarks.delta import PAGE, between, newest, promises, table
from benchmarks.peers.delta_measure import Bsdiff
from edge_contract.errors import MissingDependencyError


@pytest.fixture(scope="module")
def document():
    return json.loads(newest().read_text(encoding="utf-8"))


def test_the_page_shows_the_newest_results(document):
    text = PAGE.read_text(encoding="utf-8")
    assert between(text, table(document)) == text, "run: python -m benchmarks.delta --show"


def test_the_promises_of_size_and_memory_are_kept_on_real_files(document):
    lines = promises(document)
    assert len(lines) >= 4
    assert all("missed" not in line for line in lines), lines


def test_every_net_format_and_change_is_there_beside_bsdiff(document):
    rows = {(row["net"], row["format"], row["change"]) for row in document["rows"]}
    assert len(rows) == len(document["rows"]) == 16
    assert all(row["bsdiff4"] for row in document["rows"])
    assert document["times"]["ratio"]["n"] >= 12
    assert {"zstandard", "bsdiff4", "torch"} <= document["versions"].keys()


def test_a_figure_that_misses_its_promise_says_so(document):
    worse = json.loads(json.dumps(document))
    worse["rows"][0]["peak_bytes"] = 70_000_000
    worse["rows"][0]["bytes"][worse["rows"][0]["codec"]] = worse["rows"][0]["file_bytes"]
    assert sum("**missed**" in line for line in promises(worse)) == 2


def test_without_the_peer_its_install_line_is_told():
    with pytest.raises(MissingDependencyError, match="pip install bsdiff4"):
        Bsdiff("/usr/bin/false")
