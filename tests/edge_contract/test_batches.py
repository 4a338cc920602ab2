# SPDX-License-Identifier: Apache-2.0
"""Batches: whole or refused on the wire, bounded in size, never a bomb."""

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract.batches import CLASSES, TelemetryBatch, TelemetryRow, decode_batch, encode_batch
from edge_contract.errors import MessageError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
times = st.floats(0, 4e9)
bodies = st.dictionaries(texts, st.integers(-9, 9) | texts | st.none(), max_size=3)
BATCH_LIMIT = 100_000


@st.composite
def batches(draw):
    after = draw(st.integers(0, 1000))
    steps = draw(st.lists(st.integers(1, 5), max_size=6))
    seqs = [after + sum(steps[: i + 1]) for i in range(len(steps))]
    rows = tuple(TelemetryRow(seq, draw(times), draw(bodies)) for seq in seqs)
    return TelemetryBatch(draw(texts), draw(texts), draw(st.sampled_from(CLASSES)), after, rows)


@given(batches())
def test_a_batch_survives_the_wire(batch):
    assert decode_batch(encode_batch(batch)) == batch


@given(batches(), st.data())
def test_a_damaged_batch_is_refused_or_equal_but_never_another_crash(batch, data):
    wire = bytearray(encode_batch(batch))
    position = data.draw(st.integers(0, len(wire) - 1))
    wire[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = decode_batch(bytes(wire))
    except MessageError:
        return
    assert found == batch  # zlib's Adler-32 sees every single flipped bit of the content


@given(st.binary(max_size=50))
def test_any_bytes_are_a_batch_or_a_message_error(data):
    for wire in (data, b"\0" + data, b"\1" + data):
        with pytest.raises(MessageError):
            decode_batch(wire)


def noise(length):
    rng = random.Random(7)
    return "".join(chr(rng.randrange(33, 127)) for _ in range(length))


def test_a_batch_of_more_than_100_kb_is_refused_before_it_is_sent():
    rows = tuple(TelemetryRow(i + 1, 1.0, {"text": noise(3000)[i:]}) for i in range(3))
    assert len(encode_batch(TelemetryBatch("pi", "b", "event", 0, rows))) < BATCH_LIMIT
    big = TelemetryBatch("pi", "b", "event", 0, (TelemetryRow(1, 1.0, {"text": noise(300_000)}),))
    with pytest.raises(MessageError, match="more than 100000; send fewer rows"):
        encode_batch(big)


def test_a_bomb_is_stopped_before_it_is_inflated():
    bomb = b"\1" + zlib.compress(b" " * 50_000_000, 9)
    assert len(bomb) < BATCH_LIMIT
    with pytest.raises(MessageError, match="more than 4000000 bytes"):
        decode_batch(bomb)


def test_classes_stand_in_the_order_in_which_a_full_outbox_drops_them():
    assert (CLASSES[0], CLASSES[-1]) == ("metric", "alarm")
    assert CLASSES.index("result") > CLASSES.index("drift")
