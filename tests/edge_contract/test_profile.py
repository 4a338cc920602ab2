# SPDX-License-Identifier: Apache-2.0
"""The reference profile travels in at most 16 KB and refuses what does not fit together."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import canonical
from edge_contract.arrays import text
from edge_contract.errors import ProfileError
from edge_contract.profile import MAX_PROFILE_BYTES, Projection, ReferenceProfile
from edge_contract.summary import encode_counters
from tests.support.digits import profile


def changed(**fields):
    document = json.loads(profile().to_bytes())
    for key, value in fields.items():
        outer, _, inner = key.partition("__")
        if inner:
            document[outer][inner] = value
        else:
            document[outer] = value
    return canonical.dumps(document)


def test_what_is_written_comes_back():
    own = profile()
    data = own.to_bytes()
    again = ReferenceProfile.from_bytes(data)
    assert again == own
    assert again.to_bytes() == data
    assert again.crc == own.crc


def test_a_field_of_a_newer_writer_survives():
    data = changed(season="winter")
    newer = ReferenceProfile.from_bytes(data)
    assert newer.unrecognized == {"season": "winter"}
    assert newer.to_bytes() == data


def test_the_checksum_is_that_of_the_bytes_even_when_a_newer_writer_added_inside():
    data = changed(edges__colour="blue")
    assert ReferenceProfile.from_bytes(data).crc != profile().crc


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(schema="strop.profile/9"), "schema 'strop.profile/9' is not 'strop.profile/1'; update Strop"),
        (changed(labels=["a", "b"]), "2 class slots, counters have 10"),
        (changed(edges__energy=text(b"1234")), "4 bytes, not 60"),
        (changed(edges__energy="\\\\"), "not base 85"),
        (changed(edges__energy=text(b"\0\0\xc0\x7f" * 15)), "not a finite number"),
        (changed(edges__energy=text(b"".join(bytes([0, 0, 128, 63 - i]) for i in range(15)))), "not ascending"),
        (changed(projection__dimension=31), "256 weights for 8 × 31"),
        (changed(projection__source="none"), "256 weights for 8 × 32"),
        (changed(hits=text(b"\xff" * 5 + b"\x7f" * 40)), "more right answers than answers"),
        (changed(confusion=text(bytes(13))), "0 of 750 samples"),
        (changed(energy_deviation=0.0), "out of range"),
        (changed(design=0.5), "out of range"),
        (changed(counters=text(encode_counters(profile().counters)[:-3])), "cut short"),
        (b"[]", "expected an object"),
        (b"\xff", "not JSON"),
        (b" " * (MAX_PROFILE_BYTES + 1), "more than 16384"),
    ],
)
def test_a_malformed_profile_is_refused(data, message):
    with pytest.raises(ProfileError, match=message):
        ReferenceProfile.from_bytes(data)


def test_the_design_of_a_series_travels_and_an_independent_reference_has_the_bytes_of_ever():
    assert b"design" not in replace(profile(), design=1.0).to_bytes()
    recorded = replace(profile(), design=12.5)
    again = ReferenceProfile.from_bytes(recorded.to_bytes())
    assert (again.design, again.unrecognized) == (12.5, {})
    assert again.to_bytes() == recorded.to_bytes()


@given(st.data())
def test_damage_raises_a_profile_error_or_nothing(data):
    body = bytearray(profile().to_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ProfileError):
        ReferenceProfile.from_bytes(bytes(body[: data.draw(st.integers(0, len(body)) | st.just(len(body)))]))


def test_more_than_sixteen_kilobytes_are_refused_when_written():
    large = Projection("embedding", 5000, (1,) * 40_000, (1.0,) * 8, (0.0,) * 8, (0.0,) * 136, (0.0,) * 80)
    with pytest.raises(ProfileError, match="more than 16384; use fewer components"):
        replace(profile(), projection=large).to_bytes()


def test_a_thousand_classes_keep_names_for_sixty_three():
    blank = ReferenceProfile.blank(tuple(f"c{i}" for i in range(1000)))
    assert blank.slot_of(5) == 5
    assert blank.slot_of(999) == 63
    assert (blank.slot_name(62), blank.slot_name(63)) == ("c62", "other")
    assert ReferenceProfile.from_bytes(blank.to_bytes()) == blank
