# SPDX-License-Identifier: Apache-2.0
"""Messages: all of them both ways, within bounds, and old hands pass new fields on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import PROTOCOL_VERSION, canonical
from edge_contract.batches import CLASSES, TelemetryAck
from edge_contract.errors import MessageError, StropError
from edge_contract.jobs import JobDocument, JobStatus, Probation, Signed
from edge_contract.messages import Birth, Death, DesiredState, ModelState, ReportedState
from edge_contract.states import Phase, Status

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
counts = st.integers(0, 2**53)
times = st.floats(0, 4e9)
bodies = st.dictionaries(texts, st.integers(-9, 9) | texts | st.none(), max_size=3)

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
        st.dictionaries(texts, st.builds(ModelState, *[texts] * 6), max_size=2),
        *[bodies] * 3,
        times,
    ),
    st.builds(Signed, texts.map(str.encode), texts, texts),
    st.builds(TelemetryAck, texts, st.sampled_from(CLASSES), counts),
)


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


@given(st.sampled_from([Birth, Death, DesiredState, JobDocument, JobStatus, ReportedState, Signed, TelemetryAck]))
def test_what_is_not_even_json_is_a_message_error(kind):
    for data in (b"", b"\xff", b"null", b"[]", b'{"v":1,"v":1}', b"[" * 30_000, b'{"v":' + b"9" * 5000 + b"}"):
        with pytest.raises(StropError) as caught:
            kind.from_bytes(data)
        assert type(caught.value) is MessageError
