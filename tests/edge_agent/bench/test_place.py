# SPDX-License-Identifier: Apache-2.0
"""The folder of a benchmark: what survives a power cut, what is refused twice, and that nothing stays."""

import json

import pytest

from edge_agent.bench.place import Place
from edge_contract.bench_job import BenchJob, BenchOutcome
from edge_contract.errors import BundleError

NOW = 1_800_000_000.0


def order(name="b1-0", ends=NOW + 600):
    return BenchJob(name, "b1", "pi", "digits", "ab" * 32, (), {}, NOW, ends, 60.0, 1_000_000)


def test_an_order_is_carried_out_once_even_after_it_was_forgotten(tmp_path):
    place = Place(tmp_path)
    place.take(order(), NOW)
    assert place.current() == order()
    place.finish(order())
    assert place.current() is None
    with pytest.raises(BundleError, match="was carried out already"):
        Place(tmp_path).take(order(), NOW)


def test_ids_are_forgotten_after_their_end_when_the_signature_refuses_them(tmp_path):
    place = Place(tmp_path)
    place.take(order(), NOW)
    place.finish(order())
    place.take(order("b2-0", NOW + 9000), NOW + 700)
    assert list(place.seen()) == ["b2-0"]


def test_so_many_orders_are_refused_and_none_is_forgotten_before_its_end(tmp_path):
    place = Place(tmp_path)
    place.root.mkdir()
    (place.root / "seen.json").write_text(json.dumps({f"b{n}": NOW + 600.0 for n in range(1000)}))
    with pytest.raises(BundleError, match="1000 orders are remembered"):
        place.take(order("new"), NOW)


def test_a_power_cut_before_the_order_was_whole_leaves_nothing(tmp_path):
    place = Place(tmp_path)
    place.take(order(), NOW)
    (place.of("b1-0") / "order.json").write_bytes(b'{"v":1')
    assert Place(tmp_path).current() is None
    assert not place.of("b1-0").exists()


def test_a_power_cut_between_order_and_id_takes_the_order_up_and_notes_the_id(tmp_path):
    place = Place(tmp_path)
    place.take(order(), NOW)
    (place.root / "seen.json").unlink()
    after = Place(tmp_path)
    assert after.current() == order()
    after.note(order())
    assert after.seen() == {"b1-0": NOW + 600}


def test_the_last_word_takes_files_and_temporaries_away_and_keeps_the_result(tmp_path):
    place = Place(tmp_path)
    place.take(order(), NOW)
    folder, out = place.of("b1-0"), place.fresh(order())
    (folder / "files").mkdir()
    (out / "result.json").write_text("{}")
    place.end(order(), BenchOutcome("b1-0", True, "", {"result.json": "ab" * 32}))
    assert sorted(path.name for path in folder.iterdir()) == ["order.json", "out", "outcome.json", "state"]
    assert place.state(order()) == "sending"
    assert BenchOutcome.from_bytes(place.outcome(order())).ok
    place.end(order(), BenchOutcome("b1-0", False, "no", {}))
    assert not out.exists()


def test_a_state_that_nobody_wrote_is_the_first_one(tmp_path):
    place = Place(tmp_path)
    place.take(order(), NOW)
    (place.of("b1-0") / "state").write_text("dancing")
    assert place.state(order()) == "waiting"
    assert place.forget()
    assert not place.forget()
