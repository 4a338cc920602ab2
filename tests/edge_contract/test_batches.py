# SPDX-License-Identifier: Apache-2.0
"""Batches: whole or refused on the wire, bounded in size, never a bomb."""

import json
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import batches as under_test
from edge_contract import canonical
from edge_contract.batches import CLASSES, TelemetryBatch, TelemetryRow, decode_batch, encode_batch
from edge_contract.errors import MessageError
from edge_contract.messages import load_message

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


# --- the reader of the canonical form against the one that names faults


def by_the_general_reader(plain):
    """What the general reader makes of bytes, or None where it refuses them."""
    try:
        return TelemetryBatch.from_json(load_message(plain, "batch"))
    except MessageError:
        return None


@given(batches())
def test_what_is_canonical_is_read_in_one_pass_and_keeps_its_bytes(batch):
    found = under_test._canonical(canonical.dumps(batch.to_json()))
    escaped = any(ord(c) < 32 for text in (batch.device, batch.boot, str(batch.rows)) for c in text)
    quoted = any(c in text for text in (batch.device, batch.boot) for c in '"\\')
    if found is None:
        assert escaped or quoted or "\\u" in canonical.dumps(batch.to_json()).decode()
    else:
        assert found == batch
        assert [row.wire for row in found.rows] == [canonical.dumps(row.body) for row in batch.rows]


@given(batches(), st.data())
def test_both_readers_agree_on_any_bytes(batch, data):
    plain = bytearray(canonical.dumps(batch.to_json()))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(plain)))
        end = data.draw(st.integers(start, min(start + 3, len(plain))))
        plain[start:end] = data.draw(
            st.sampled_from([b"", b",", b"]", b"}", b" ", b"0", b'"', b"[", b"-1", b"{}", b"e9"])
        )
    found = under_test._canonical(bytes(plain))
    if found is not None:
        assert found == by_the_general_reader(bytes(plain))
        assert [json.loads(row.wire) for row in found.rows] == [row.body for row in found.rows]


HEAD = '{"after_seq":0,"boot":"b","class":"metric","device":"pi","rows":['


@pytest.mark.parametrize(
    "rest",
    [
        '[1,"0x1.0p+0",{"a":1,"a":2}]],"v":1}',
        '[1,"0x1.0p+0",{"a":NaN}]],"v":1}',
        '[1,"0x1.0p+0",{"a":1}]],"v":1} ',
        '[1,"0x1.0p+0",{"a":1}],],"v":1}',
        '[1,"0x1.0p+0",{"a":1}],"v":1}',
        '[1,"0x1.0p+0",[]]],"v":1}',
        '[1,"0x1.0p+9999",{}]],"v":1}',
        '[1,1.5,{}]],"v":1}',
        '[01,"0x1.0p+0",{}]],"v":1}',
        '[0,"0x1.0p+0",{}]],"v":1}',
        '[2,"0x1.0p+0",{}],[2,"0x1.0p+0",{}]],"v":1}',
        '[1,"0x1.0p+0",{"a":"\\ud800"}]],"v":1}',
        '[1,"0x1.0p+0",' + '{"a":' * 3000 + "1" + "}" * 3000 + ']],"v":1}',
        '[1,"0x1.0p+0",{"a":' + "9" * 5000 + '}]],"v":1}',
        '],"v":99}',
        '],"v":1,"w":2}',
    ],
)
def test_what_looks_otherwise_goes_to_the_reader_that_names_faults(rest):
    plain = (HEAD + rest).encode()
    assert under_test._canonical(plain) is None
    found = by_the_general_reader(plain)
    assert found is None or all(row.wire == b"" for row in found.rows)


def test_letters_of_all_alphabets_keep_their_bytes():
    body = {"ort": "Bäckerstraße", "字": "観測"}
    found = decode_batch(encode_batch(TelemetryBatch("pi", "b", "event", 0, (TelemetryRow(1, 2.5, body),))))
    assert found.rows[0].wire.decode() == '{"ort":"Bäckerstraße","字":"観測"}'
