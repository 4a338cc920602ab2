# SPDX-License-Identifier: Apache-2.0
"""The observer counts what plain formulas say, however the stream is cut, and does not choke on bad answers."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.runner.features import input_statistics, output_statistics, stride_for
from edge_agent.runner.observe import BATCH, Observer
from edge_contract.counts import ENERGY_UNIT, Counters, latency_bucket
from edge_contract.errors import ProfileError
from edge_contract.profile import Projection, ReferenceProfile
from tests.support.digits import answers, digits, profile

NAMES = tuple("abcdefghij")


def feed(observer, rows):
    given_answers, raw = answers(0, "test"), digits(0).test
    for row in rows:
        observer.observe(given_answers[row].logits, given_answers[row].embedding, raw[row], 250.0 + row)
    return observer


@settings(max_examples=25)
@given(st.lists(st.integers(1, 150), max_size=5))
def test_reading_in_between_changes_nothing(cuts):
    at_once, cut = feed(Observer(profile()), range(300)), Observer(profile())
    start = 0
    for size in [*cuts, 300]:
        feed(cut, range(start, min(300, start + size)))
        start = min(300, start + size)
        cut.counters()
    assert cut.counters() == at_once.counters()


def test_two_devices_merged_are_one_device_that_saw_both():
    one, two = feed(Observer(profile()), range(100)).counters(), feed(Observer(profile()), range(100, 250)).counters()
    both = feed(Observer(profile()), range(250)).counters()
    merged = one.merge(two)
    # Pairs and blocks that straddle the two streams exist only in the long one.
    order = dict.fromkeys(("blocks", "block_sum", "block_squares", "pairs", "lag", "repeats"), 0)
    assert replace(merged, **order) == replace(both, **order)
    assert (merged.pairs, both.pairs) == (248, 249)


def test_the_counters_are_those_of_plain_formulas():
    """Every number again, one inference after the other, in floats and loops."""
    reference = profile()
    rows = range(BATCH + 9)
    found = feed(Observer(reference), rows).counters()
    found.check()
    edges, p = reference.edges, reference.projection
    again = {name: [0] * len(getattr(found, name)) for name in ("cells", "confidence", "energy", "embedding_sum")}
    energies = []
    for row in rows:
        logits = [float(v) for v in answers(0, "test")[row].logits]
        best, energy = logits.index(max(logits)), math.log(sum(math.exp(v) for v in logits))
        sure = logits[best] - energy
        again["cells"][4 * best + sum(sure >= e for e in edges.levels)] += 1
        again["confidence"][sum(sure >= e for e in edges.confidence)] += 1
        again["energy"][sum(energy >= e for e in edges.energy)] += 1
        energies.append(round((energy - reference.energy_mean) / reference.energy_deviation * ENERGY_UNIT))
        for k in range(p.components):
            weights = p.weights[k * p.dimension : (k + 1) * p.dimension]
            z = p.scale[k] * sum(w * float(e) for w, e in zip(weights, answers(0, "test")[row].embedding, strict=True))
            again["embedding_sum"][k] += round(min(max(z - p.offset[k], -6), 6) * 1024)
    assert list(found.cells) == again["cells"]
    assert list(found.confidence) == again["confidence"]
    assert list(found.energy) == again["energy"]
    # Last bits of exp and log may differ between numpy and math: one unit per inference at the very most.
    assert abs(found.energy_sum - sum(energies)) <= 2
    assert abs(found.lag - sum(a * b for a, b in pairwise(energies))) <= 400
    assert max(abs(a - b) for a, b in zip(found.embedding_sum, again["embedding_sum"], strict=True)) <= 2
    assert found.latency[latency_bucket(250)] == sum(latency_bucket(250 + r) == latency_bucket(250) for r in rows)
    assert found.latency_sum_us == sum(250 + r for r in rows)
    classes = [int(np.argmax(answers(0, "test")[r].logits)) for r in rows]
    assert found.repeats == sum(a == b for a, b in pairwise(classes))


def test_saturated_answers_keep_their_order():
    logits = np.array([[40.0, 0.0, -40.0], [60.0, 0.0, -40.0], [0.0, 0.0, 0.0]])
    said = output_statistics(logits)
    assert said.confidence[0] < said.confidence[1] < 0  # both max-probs are 1.0 in float32
    assert said.confidence[2] == pytest.approx(math.log(1 / 3))
    assert said.energy[2] == pytest.approx(math.log(3))


def test_input_statistics_of_known_images():
    black, white = np.zeros((20, 20), np.uint8), np.full((20, 20), 255, np.uint8)
    stripes = np.tile(np.array([0, 255], np.uint8), (20, 10))
    seen = input_statistics(np.stack([black, white, stripes]))
    assert seen.values[0] == pytest.approx([0, 1, 0.5])
    assert seen.values[1] == pytest.approx([0, 0, 0.5], abs=1e-6)
    assert seen.values[2] == pytest.approx([0, 0, 19 / 40])  # 19 of 20 columns differ from their neighbour
    assert seen.dark == pytest.approx([1, 0, 0.5])
    assert seen.bright == pytest.approx([0, 1, 0.5])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_grey_image_looks_the_same_in_any_number_of_channels(channels):
    gray = np.random.default_rng(1).integers(0, 256, (5, 16, 16), dtype=np.uint8)
    coloured = np.repeat(gray[..., None], channels, axis=3)
    assert input_statistics(coloured).values == pytest.approx(input_statistics(gray).values, abs=1 / 200)


def test_a_large_image_is_looked_at_through_a_grid():
    assert (stride_for(64, 64), stride_for(65, 10), stride_for(1080, 1920)) == (1, 2, 30)
    observer = Observer(ReferenceProfile.blank(NAMES))
    observer.observe(np.zeros(10), None, np.zeros((1080, 1920, 3), np.uint8), 1.0)
    assert observer._pixels.first(1).shape == (1, 36, 64, 3)
    assert sum(observer.counters().brightness) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_no_number_is_an_error_and_not_a_sample(bad):
    observer = feed(Observer(profile()), range(10))
    broken = answers(0, "test")[0].logits.copy()
    broken[3] = bad
    observer.observe(broken, answers(0, "test")[0].embedding, digits(0).test[0], 1.0)
    counters = feed(observer, range(10, 20)).counters()
    counters.check()
    assert (counters.n_infer, counters.n_sampled, counters.n_err) == (21, 20, 1)


def test_nothing_but_errors_is_still_a_window():
    observer = Observer(profile())
    observer.observe(np.full(10, math.nan), np.zeros(32), None, 1.0)
    observer.error()
    observer.drop(3)
    counters = observer.counters()
    counters.check()
    assert (counters.n_infer, counters.n_sampled, counters.n_err, counters.n_drop) == (2, 0, 2, 3)


def test_inputs_of_changing_shape_or_none_at_all_are_counted_in_their_order():
    observer, random = Observer(ReferenceProfile.blank(NAMES)), np.random.default_rng(0)
    shapes = [(28, 28), (28, 28), (20, 30, 3), None, (28, 28), (7,)]
    for i, shape in enumerate(shapes):
        raw = None if shape is None else random.integers(0, 256, shape, dtype=np.uint8)
        observer.observe(np.eye(10)[i], None, raw, 1.0)
    counters = observer.counters()
    counters.check()
    assert counters.classes[:6] == (1,) * 6
    assert sum(counters.brightness) == 4
    assert counters.pairs == 5


def test_shapes_that_are_not_the_profiles_are_refused():
    observer = Observer(profile())
    with pytest.raises(ProfileError, match=r"logits of shape \(3,\), not \(10,\)"):
        observer.observe(np.zeros(3), np.zeros(32), None, 1.0)
    with pytest.raises(ProfileError, match=r"embedding of shape \(5,\), the profile expects \(32,\)"):
        observer.observe(np.zeros(10), np.zeros(5), None, 1.0)
    with pytest.raises(ProfileError, match="embedding none, the profile expects"):
        observer.observe(np.zeros(10), None, None, 1.0)
    assert observer.counters() == Counters.zero(10)


def test_thinning_keeps_the_share_and_counts_every_inference():
    observer = Observer(profile(), keep=0.25, seed=3)
    for _ in range(4):
        feed(observer, range(1000))
    counters = observer.counters()
    counters.check()
    assert counters.n_infer == 4000
    assert 900 < counters.n_sampled < 1100  # 1000 ± 27


def test_more_than_sixty_four_classes_share_the_last_slot():
    blank = ReferenceProfile.blank(tuple(f"c{i}" for i in range(200)))
    observer = Observer(replace(blank, own_slots=tuple(range(100, 163))))
    for label in (100, 150, 7, 199):
        observer.observe(np.eye(200)[label] * 9, None, None, 1.0)
    classes = observer.counters().classes
    assert (classes[0], classes[50], classes[63]) == (1, 1, 2)


def test_without_an_embedding_the_logits_are_projected():
    blank = ReferenceProfile.blank(NAMES)
    projection = Projection("logits", 10, (127,) + (0,) * 9, (1 / 127,), (0.0,), (1.0, 0.0, 1.0), (0.0,) * 10)
    observer = Observer(replace(blank, projection=projection))
    for value in (1.0, -2.0, 100.0):
        observer.observe(np.eye(10)[0] * value, None, None, 1.0)
    counters = observer.counters()
    assert counters.embedding_sum[0] == (1 - 2 + 6) * 1024  # 100 is clipped to 6
    assert counters.embedding_squares[0] == (1 + 4 + 36) * 1024
