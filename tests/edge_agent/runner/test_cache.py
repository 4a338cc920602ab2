# SPDX-License-Identifier: Apache-2.0
"""The result cache: the same bytes give the same answer without the runtime; bounded, counted, one for each model."""

import numpy as np
import pytest

import edge_agent
from edge_agent.counters import CounterFile
from edge_agent.runner.cache import ResultCache
from edge_agent.runner.commands import Load, UseSource
from edge_agent.runner.engine import Engine, Settings
from edge_contract.errors import UsageError
from tests.edge_agent.runner import bundles, tiny

RAW = tiny.images(6, seed=3)


def test_an_input_that_comes_again_is_not_inferred_again(built):
    with edge_agent.Model.open(built, runtime="litert", cache=4) as model:
        first = [model.predict(raw) for raw in RAW[:3]]
        calls = []
        with model.file.running(lambda x: calls.append(1)):
            again = [model.predict(raw.copy()) for raw in RAW[:3]]
    assert (calls, [id(a) for a in again]) == ([], [id(a) for a in first])


@pytest.mark.parametrize(
    "other", [RAW[0] ^ np.uint8(1), RAW[0].reshape(8, 8, 1), RAW[0].astype(np.int16), RAW[0][::-1]]
)
def test_another_byte_shape_type_or_order_is_another_input(other):
    assert ResultCache.key(other) != ResultCache.key(RAW[0])


def test_how_an_array_lies_in_memory_does_not_matter():
    wide = np.zeros((8, 16), np.uint8)
    wide[:, ::2] = RAW[0]
    assert ResultCache.key(wide[:, ::2]) == ResultCache.key(np.asfortranarray(RAW[0])) == ResultCache.key(RAW[0])


def test_the_least_recently_used_answer_goes():
    cache = ResultCache(2)
    for key in (b"a", b"b"):
        cache.put(key, key)
    assert cache.get(b"a") == b"a"
    cache.put(b"c", b"c")
    assert [cache.get(key) for key in (b"a", b"b", b"c")] == [b"a", None, b"c"]
    assert (cache.hits, cache.lookups, len(cache)) == (3, 4, 2)


@pytest.mark.parametrize("entries", [0, -1, 1_000_000])
def test_a_cache_without_a_bound_is_refused(entries):
    with pytest.raises(UsageError, match="a cache of"):
        ResultCache(entries)


def test_hits_stand_in_the_counter_file_and_a_new_model_knows_nothing_of_the_old_one(tmp_path, built):
    second = bundles.build(tmp_path / "v2", seed=5, version="2.0.0")
    np.save(tmp_path / "frames.npy", np.concatenate([RAW[:2]] * 5))
    counters, events = tmp_path / "c.bin", []
    engine = Engine(Settings("litert", counters, cache=8), events.append)
    spec = {"kind": "replay", "path": str(tmp_path / "frames.npy"), "rate_hz": 0}
    said = []
    for bundle in (built, second):
        engine.obey(Load("active", bundle))
        engine.obey(UseSource("b", spec))
        for _ in range(11):
            engine.work()
        engine.flush()
        said.append([row[1:] for event in events if event["event"] == "results" for row in event["rows"]][-10:])
        reading = CounterFile(counters).read()
        assert (reading.tallies.cache_hits, reading.tallies.cache_lookups) == (8, 10)
        assert reading.counters.n_infer == 10
        assert reading.tallies.facts() == {"cache_hits": 8, "cache_lookups": 10}
    assert said[0] != said[1]
    engine.close()
