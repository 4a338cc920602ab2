# SPDX-License-Identifier: Apache-2.0
"""Messages: both ways, within bounds, and old hands pass new fields on."""

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import PROTOCOL_VERSION, canonical, messages
from edge_contract.errors import MessageError, StropError
from edge_contract.messages import (
    CLASSES,
    Birth,
    Death,
    DesiredState,
    JobDocument,
    JobStatus,
    Probation,
    ReportedState,
    Signed,
    TelemetryAck,
    TelemetryBatch,
    TelemetryRow,
    decode_batch,
    encode_batch,
)
from edge_contract.states import Phase, Status

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
counts = st.integers(0, 2**53)
times = st.floats(0, 4e9)
bodies = st.dictionaries(texts, st.integers(-9, 9) | texts | st.none(), max_size=3)
BATCH_LIMIT = 100_000

MESSAGES = st.one_of(
    st.builds(Birth, texts, texts, counts, texts, texts, texts, bodies, times),
    st.builds(Death, texts, texts, counts),
    st.builds(DesiredState, counts, st.dictionaries(texts, texts, max_size=3), bodies),
    st.builds(
        JobDocument,
        *[texts] * 3,
        st.sampled_from(["install", "cancel", "none"]),
        *[texts] * 3,
        *[times] * 3,
        st.builds(Probation, st.integers(1, 9), times, times, times, times, counts),
    ),
    st.builds(JobStatus, texts, texts, st.sampled_from(Status), st.sampled_from(Phase), counts, texts, bodies, times),
    st.builds(
        ReportedState,
        texts,
        texts,
        counts,
        st.dictionaries(texts, st.builds(messages.ModelState, *[texts] * 6), max_size=2),
        *[bodies] * 3,
        times,
    ),
    st.builds(Signed, texts.map(str.encode), texts, texts),
    st.builds(TelemetryAck, texts, st.sampled_from(CLASSES), counts),
)


@st.composite
def batches(draw):
    after = draw(st.integers(0, 1000))
    steps = draw(st.lists(st.integers(1, 5), max_size=6))
    seqs = [after + sum(steps[: i + 1]) for i in range(len(steps))]
    rows = tuple(TelemetryRow(seq, draw(times), draw(bodies)) for seq in seqs)
    return TelemetryBatch(draw(texts), draw(texts), draw(st.sampled_from(CLASSES)), after, rows)


@given(MESSAGES)
def test_every_message_comes_back_equal_and_with_the_same_bytes(message):
    found = type(message).from_bytes(message.to_bytes())
    assert found == message
    assert found.to_bytes() == message.to_bytes()


@given(MESSAGES, st.dictionaries(st.sampled_from(["zz", "aa", "new"]), st.integers(), min_size=1))
def test_what_a_reader_does_not_know_is_written_back(message, extra):
    data = canonical.dumps({**message.to_json(), **extra})
    assert type(message).from_bytes(data).to_bytes() == data


@given(MESSAGES, st.sampled_from([PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 7, 0, -1]))
def test_another_protocol_version_is_refused(message, version):
    with pytest.raises(MessageError):
        type(message).from_bytes(canonical.dumps({**message.to_json(), "v": version}))


@given(MESSAGES, st.data())
def test_a_cut_message_is_refused_and_never_half_read(message, data):
    whole = message.to_bytes()
    with pytest.raises(MessageError):
        type(message).from_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])


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


def test_probation_has_defaults_for_what_an_order_leaves_out():
    assert Probation.from_json({}) == Probation()
    assert Probation.from_json({"inferences": 5}).inferences == 5


def test_classes_stand_in_the_order_in_which_a_full_outbox_drops_them():
    assert (CLASSES[0], CLASSES[-1]) == ("metric", "alarm")
    assert CLASSES.index("result") > CLASSES.index("drift")


def test_the_next_report_of_an_order_grows_by_one():
    first = JobStatus("j", "pi", Status.IN_PROGRESS, Phase.ACCEPTED, 4, "", {}, 1.0)
    second = messages.next_report(first, time=2.0, status=Status.FAILED, phase=Phase.FAILED, reason="no space")
    assert (second.seq, second.status, second.reason, second.job_id) == (5, Status.FAILED, "no space", "j")


@given(st.sampled_from([Birth, Death, DesiredState, JobDocument, JobStatus, ReportedState, Signed, TelemetryAck]))
def test_what_is_not_even_json_is_a_message_error(kind):
    for data in (b"", b"\xff", b"null", b"[]", b'{"v":1,"v":1}', b"[" * 30_000, b'{"v":' + b"9" * 5000 + b"}"):
        with pytest.raises(StropError) as caught:
            kind.from_bytes(data)
        assert type(caught.value) is MessageError
