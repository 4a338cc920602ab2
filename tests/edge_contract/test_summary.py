# SPDX-License-Identifier: Apache-2.0
"""The wire form of a drift summary: small, exact, and deaf to damage."""

import random
import struct
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_contract.counts import Counters
from edge_contract.errors import SummaryError
from edge_contract.packing import Cursor, pack_counts, pack_signed, pack_unsigned
from edge_contract.summary import MAX_SUMMARY_BYTES, DriftSummary, Health, decode, decode_counters, encode_counters
from tests.support.windows import build, summaries

IDS = {"device": "11" * 8, "bundle": "22" * 16, "profile_crc": 7, "boot": "33" * 4}


def typical(n=200, slots=10):
    counters = build(slots, n, random.Random(5).randrange)
    return DriftSummary(**IDS, window=3, start_ms=1_700_000_000_000, duration_ms=60_000, counters=counters)


def with_checksum(body):
    return body + struct.pack("<I", zlib.crc32(body))


@given(summaries())
def test_what_is_encoded_comes_back(summary):
    assert decode(summary.encode()) == summary


@given(summaries())
def test_no_summary_of_a_window_exceeds_two_kilobytes(summary):
    assert len(summary.encode()) <= MAX_SUMMARY_BYTES


def test_a_typical_window_of_ten_classes_takes_no_more_than_512_bytes():
    # Uniform random counts are the worst case for the bitmaps: a real window is smaller (300 to 340 bytes).
    assert len(typical().encode()) <= 512
    assert len(typical(n=1000).encode()) <= 640


def test_a_thousand_samples_of_a_thousand_classes_fit():
    assert len(typical(n=1000, slots=64).encode()) <= 1024


def test_counters_that_do_not_fit_are_refused_before_they_are_sent():
    year = Counters.from_vector(64, [v * 10**9 for v in build(64, 3000, random.Random(1).randrange).to_vector()])
    with pytest.raises(SummaryError, match="more than 2048; close windows earlier"):
        replace(typical(), counters=year).encode()


@pytest.mark.parametrize(
    "change",
    [{"device": "zz" * 8}, {"bundle": "22"}, {"boot": ""}, {"cusum": (1.0,)}, {"window": -1}, {"start_ms": -5}],
)
def test_a_header_field_that_does_not_fit_is_refused(change):
    with pytest.raises(SummaryError, match="a header field does not fit"):
        replace(typical(), **change).encode()


def test_every_single_flipped_bit_is_noticed():
    data = typical().encode()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SummaryError):
            decode(bytes(flipped))


def test_every_truncation_is_noticed():
    data = typical().encode()
    for size in range(len(data)):
        with pytest.raises(SummaryError):
            decode(data[:size])


@given(st.binary(max_size=3000))
def test_no_bytes_at_all_raise_anything_else(data):
    with pytest.raises(SummaryError):
        decode(data)


@settings(max_examples=400)
@given(st.data())
def test_a_forged_checksum_leads_to_a_summary_or_a_summary_error(data):
    """Whoever can compute a CRC may send anything: the decoder must still not fall over."""
    body = bytearray(typical(n=30).encode()[:-4])
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)) | st.just(len(body)))
    try:
        summary = decode(with_checksum(bytes(body[:cut])))
    except SummaryError:
        return
    summary.counters.check()
    assert decode(summary.encode()) == summary


def test_a_section_of_a_newer_writer_is_kept():
    body = typical().encode()[:-4] + bytes([77, 3]) + b"new"
    newer = decode(with_checksum(body))
    assert newer.unrecognized == ((77, b"new"),)
    assert newer.encode() == with_checksum(body)


@pytest.mark.parametrize(
    ("extra", "message"),
    [(bytes([1, 0]), "section 1 stands twice"), (bytes([77, 9]) + b"x", "cut short"), (bytes([77]), "cut short")],
)
def test_malformed_sections_are_refused(extra, message):
    with pytest.raises(SummaryError, match=message):
        decode(with_checksum(typical().encode()[:-4] + extra))


def test_another_version_says_who_must_update():
    data = bytearray(typical().encode())
    data[2] = 9
    with pytest.raises(SummaryError, match="version 9 is unknown, we read 1; update the server"):
        decode(bytes(data))


def test_a_sensor_that_is_missing_stays_missing():
    assert Health.unpack(Health().pack()) == Health()


def test_health_out_of_range_is_clipped_instead_of_lost():
    packed = Health(temperature_c=(-9e9, 20.0, 9e9), cpu_percent=1e9, disk_free_mb=10**9).pack()
    assert Health.unpack(packed).temperature_c == (-3276.7, 20.0, 3276.7)
    assert Health.unpack(packed).disk_free_mb == 65534


@given(st.lists(st.integers(0, 2**62), max_size=40), st.lists(st.integers(-(2**61), 2**61), max_size=10))
def test_packed_integers_come_back(counts, signed):
    cursor = Cursor(pack_counts(counts) + pack_signed(signed) + pack_unsigned(counts))
    assert cursor.counts(len(counts)) == tuple(counts)
    assert [cursor.signed() for _ in signed] == signed
    assert [cursor.unsigned() for _ in counts] == counts
    assert cursor.ended


@pytest.mark.parametrize("value", [-1, 2**63])
def test_an_integer_that_does_not_fit_is_refused(value):
    with pytest.raises(SummaryError, match="not within"):
        pack_unsigned([value])


def test_an_endless_varint_is_refused():
    with pytest.raises(SummaryError, match="more than nine bytes"):
        Cursor(b"\xff" * 12).unsigned()


def test_counters_alone_come_back():
    counters = build(4, 80, random.Random(3).randrange)
    assert decode_counters(encode_counters(counters)) == counters


def test_counters_without_a_section_are_refused():
    data = encode_counters(Counters.zero(2))
    with pytest.raises(SummaryError, match="section 2 is missing"):
        decode_counters(data[:6])
