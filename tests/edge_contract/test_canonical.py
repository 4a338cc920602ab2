# SPDX-License-Identifier: Apache-2.0
"""Canonical JSON: stable, free of surprises, and every refusal one of ours."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import canonical
from edge_contract.errors import ContractError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=20
)


def shuffled(value, order):
    if isinstance(value, dict):
        keys = sorted(value, reverse=order)
        return {key: shuffled(value[key], order) for key in keys}
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


@given(values)
def test_bytes_are_a_fixed_point(value):
    once = canonical.dumps(value)
    assert canonical.dumps(canonical.loads(once)) == once


@given(values)
def test_order_of_keys_never_shows(value):
    assert canonical.dumps(shuffled(value, order=True)) == canonical.dumps(shuffled(value, order=False))


@given(values)
def test_it_is_plain_json_without_spaces_that_anyone_can_read(value):
    data = canonical.dumps(value)
    document = json.loads(data)
    assert json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode() == data


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_comes_back_to_the_bit(number):
    found = canonical.as_float(canonical.loads(canonical.dumps(number)))
    assert found == number
    assert math.copysign(1.0, found) == math.copysign(1.0, number)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_by_a_contract_error(data):
    try:
        value = canonical.loads(data)
    except ContractError as error:
        assert "\n" not in str(error)
    else:
        json.dumps(value)


@pytest.mark.parametrize("bad", ["0.5", "1", "inf", "nan", "0x1p0", "0x1.8", " 0x1.8p+0", "0x1.8p+0 ", "0X1.8P+0", ""])
def test_a_text_that_float_hex_never_writes_is_no_number(bad):
    """float.fromhex reads "0.5" as 0.3125: a quiet mistake, so such texts are refused."""
    with pytest.raises(ContractError, match="expected a number"):
        canonical.as_float(bad)


@pytest.mark.parametrize("bad", [True, None, [], {}, "0x1.0p+9999", 10**400])
def test_as_float_refuses_what_is_no_finite_number(bad):
    with pytest.raises(ContractError):
        canonical.as_float(bad, where="here")


@pytest.mark.parametrize(
    "bad",
    [math.nan, math.inf, [-math.inf], {"a": {"b": math.nan}}, {1: 2}, {"a": b"bytes"}, {"a": {1, 2}}, "\ud800"],
    ids=repr,
)
def test_what_has_no_canonical_form_is_refused(bad):
    with pytest.raises(ContractError):
        canonical.dumps(bad)


def test_the_path_of_the_fault_is_named():
    with pytest.raises(ContractError, match=r"\$\.a\[1\]\.b: nan has no canonical form"):
        canonical.dumps({"a": [1, {"b": math.nan}]})


@pytest.fixture
def counts(monkeypatch):
    """As on Python 3.12 and newer, whose own reader does not stop in time."""
    monkeypatch.setattr(canonical, "_COUNTS", True)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'["[]]}{\\"",', b"]")])
def test_brackets_are_counted_and_those_in_texts_are_not(counts, opening, closing):
    data = opening * canonical.MAX_DEPTH + b"1" + closing * canonical.MAX_DEPTH
    assert canonical.loads(data) == json.loads(data)
    with pytest.raises(ContractError, match="nested too deeply"):
        canonical.loads(opening + data + closing)


def test_many_brackets_beside_one_another_are_not_deep(counts):
    data = b"[" + b",".join([b"[{},[]]"] * 10_000) + b"]"
    assert canonical.loads(data) == [[{}, []]] * 10_000


@pytest.mark.parametrize("data", [b'"' + b'\\"' * 200_000, b"[" * 200_000, b"[]" * 200_000, b'["' * 100_000])
def test_hostile_brackets_and_texts_are_refused_in_one_pass(counts, data):
    with pytest.raises(ContractError):
        canonical.loads(data)


def test_deep_nesting_is_refused_and_not_a_crash():
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ContractError, match="nested too deeply"):
        canonical.dumps(deep)
    with pytest.raises(ContractError, match="nested too deeply"):
        canonical.loads("[" * 50_000)


def test_digest_is_sha256_of_the_bytes():
    # FIPS 180-2, appendix B.1
    assert canonical.digest(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
