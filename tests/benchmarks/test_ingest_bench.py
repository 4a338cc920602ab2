# SPDX-License-Identifier: Apache-2.0
"""The figures of the ingest benchmark: ratios within a turn, medians over turns, and rows that are new in every run."""

import pytest

from benchmarks.fleet.header import header
from benchmarks.fleet.ingest import Run, Seen, Way, measure, table
from benchmarks.fleet.publisher import batch_bytes
from edge_contract.batches import decode_batch


class Bench:
    """What ``measure`` asks of a bench; notes which rows each run publishes."""

    devices = 100

    def __init__(self):
        self.published, self.asked = [], []

    def rate(self, way, count, seq):
        self._publish(count, seq)
        turn = sum(name == way.name for name, _ in self.asked)
        self.asked.append((way.name, seq))
        return Run(*{"bare": (1000.0 * (turn + 1), 50.0, 20.0), "one": (600.0 * (turn + 1), 90.0, 30.0)}[way.name])

    def waits(self, way, count, seq, rate):
        self._publish(count, seq)
        self.asked.append((f"{way.name} at half", rate))
        return [i / 1000 for i in range(1, count + 1)]

    def _publish(self, count, seq):
        self.published += [(i % self.devices, seq + i // self.devices) for i in range(count)]


@pytest.fixture(scope="module")
def found():
    bench = Bench()
    return bench, measure(bench, [Way("bare"), Way("one", "", 1)], 3, 250)


def test_a_ratio_is_of_one_turn(found):
    _, figures = found
    assert figures["one"]["ratio"]["median"] == pytest.approx(0.6)
    assert figures["one"]["ratio"]["low"] == figures["one"]["ratio"]["high"] == pytest.approx(0.6)
    assert figures["one"]["rate"] == 1200.0


def test_waits_are_taken_at_half_of_the_rate_so_far(found):
    bench, figures = found
    assert [rate for name, rate in bench.asked if name == "one at half"] == [300.0, 450.0, 600.0]
    assert (figures["one"]["p50_ms"], figures["one"]["p99_ms"], figures["one"]["acked"]) == (126.0, 248.0, 750)


def test_no_row_is_published_twice(found):
    bench, _ = found
    assert len(bench.published) == len(set(bench.published)) == 3 * 3 * 250


def test_the_table_names_ways_counts_and_the_interval(found):
    text = table(found[1])
    assert "one" in text
    assert "60.0 % [60, 60]" in text
    assert "750" in text
    assert "medians of 3 turns; the interval holds the median with 75 %" in text


def test_a_table_says_how_it_was_made():
    machine, command = header("benchmarks.fleet.ingest", ["--turns", "2"])
    assert "cores" in machine
    assert command == "python -m benchmarks.fleet.ingest --turns 2"


def test_a_run_without_waits_says_none():
    bare = Seen([Run(10.0, 1.0, 1.0)])
    assert "p99_ms" not in bare.to_json(bare)


def test_a_published_batch_is_read_in_one_pass():
    """The benchmark sends what agents send: canonical bytes, about a kilobyte."""
    (row,) = decode_batch(batch_bytes("d1", 7, 0)).rows
    assert row.seq == 7
    assert row.wire
