# SPDX-License-Identifier: Apache-2.0
"""Enrolment tokens: pure rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract.enrolment import EnrolmentAnswer, EnrolmentRequest
from edge_contract.errors import EnrolmentError, MessageError
from fleet.core.enrolment import RANDOM_BYTES, TokenRecord, check_token, new_token, parse_token, use_token

CA = "d" * 64
random_bytes = st.binary(min_size=RANDOM_BYTES, max_size=64)


@given(random_bytes, st.floats(0, 4e9), st.floats(1e-3, 1e6))
def test_a_token_parses_back_and_its_record_keeps_no_secret(noise, now, ttl_s):
    token, record = new_token(noise, CA, now, ttl_s)
    assert parse_token(f"  {token}\n") == token
    assert TokenRecord.from_json(record.to_json()) == record
    assert token.secret not in repr(record)
    assert token.secret not in repr(token)


@given(st.one_of(st.text(), st.text("strop1.0af", max_size=200)))
def test_any_text_is_a_token_or_an_enrolment_error(text):
    try:
        parse_token(text)
    except EnrolmentError as error:
        assert "not an enrolment token" in str(error)


@given(random_bytes, st.floats(0, 1000))
def test_a_token_works_exactly_until_its_end(noise, later):
    token, record = new_token(noise, CA, 1000.0, 500.0)
    if 1000.0 + later < 1500.0:
        check_token(record, token.secret, 1000.0 + later)
    else:
        with pytest.raises(EnrolmentError, match="expired"):
            check_token(record, token.secret, 1000.0 + later)


def test_a_used_token_serves_only_the_key_that_used_it():
    token, record = new_token(bytes(RANDOM_BYTES), CA, 1000.0)
    spent = use_token(record, "pi-01", "k" * 64, 1001.0)
    check_token(spent, token.secret, 1002.0, key_digest="k" * 64)
    for other in ("", "q" * 64):
        with pytest.raises(EnrolmentError, match="already used by device 'pi-01'"):
            check_token(spent, token.secret, 1002.0, key_digest=other)
    with pytest.raises(EnrolmentError, match="already used by device 'pi-01'"):
        use_token(spent, "pi-02", "k" * 64, 1003.0)


def test_a_token_that_was_used_without_a_key_serves_nobody_again():
    token, record = new_token(bytes(RANDOM_BYTES), CA, 1000.0)
    with pytest.raises(EnrolmentError, match="already used"):
        check_token(use_token(record, "pi-01", "", 1001.0), token.secret, 1002.0)


def test_a_wrong_secret_is_answered_like_an_unknown_token():
    _, record = new_token(bytes(RANDOM_BYTES), CA, 1000.0)
    said = []
    for candidate in (None, record):
        with pytest.raises(EnrolmentError) as caught:
            check_token(candidate, "f" * 40, 1001.0)
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("noise", "ttl_s"), [(b"short", 60.0), (bytes(RANDOM_BYTES), 0.0), (bytes(RANDOM_BYTES), -1.0)]
)
def test_a_token_that_would_be_weak_or_dead_is_not_made(noise, ttl_s):
    with pytest.raises(EnrolmentError):
        new_token(noise, CA, 0.0, ttl_s)


def test_request_and_answer_survive_the_wire():
    request = EnrolmentRequest("t", "pi", "csr")
    answer = EnrolmentAnswer("c", "ca", "k", "r", "default", {"host": "h", "port": 1}, "https://h")
    from edge_contract import canonical

    assert EnrolmentRequest.from_bytes(canonical.dumps(request.to_json())) == request
    assert EnrolmentAnswer.from_bytes(canonical.dumps(answer.to_json())) == answer


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"token":1}', b"\xff", b'{"token":"a","token":"b"}'])
def test_a_malformed_request_is_a_message_error(data):
    with pytest.raises(MessageError):
        EnrolmentRequest.from_bytes(data)
