# SPDX-License-Identifier: Apache-2.0
"""What release 0.1.0 said of drift: read, judged and written again to the byte; and bytes that lie about every task."""

import json
import zlib
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_contract import canonical
from edge_contract.counts import Counters
from edge_contract.errors import ProfileError, StropError, SummaryError
from edge_contract.findings import DriftState
from edge_contract.noise import noised
from edge_contract.profile import ReferenceProfile
from edge_contract.summary import DriftSummary, decode, decode_counters, encode_counters
from edge_contract.tasks import TASKS, Form
from edge_contract.verdict import judge
from tests.support.windows import build

RECORDED = Path(__file__).parents[1] / "vectors" / "drift"
FORMS = (
    Form("detect", (16, 16, 16, 3)),
    Form("regress", (32,), 3),
    Form("regress", (16,) * 8),
    Form("anomaly", (8,)),
    Form("segment", (64,)),
    Form("classify", (), 16),
    Form(),
)


def test_summary_profile_and_counters_of_0_1_0_keep_their_bytes():
    summary = decode((RECORDED / "summary.bin").read_bytes())
    assert summary.encode() == (RECORDED / "summary.bin").read_bytes()
    assert (summary.counters.form, summary.counters.noise, summary.unrecognized) == (Form(), (0, 0), ())
    assert summary.cusum == (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
    data = (RECORDED / "profile.json").read_bytes()
    profile = ReferenceProfile.from_bytes(data)
    assert (profile.to_bytes(), profile.crc) == (data, zlib.crc32(data))
    assert (profile.task, profile.scores, profile.look.kind) == ("classify", "logits", "images")
    counters = decode_counters((RECORDED / "counters.bin").read_bytes())
    assert encode_counters(counters) == (RECORDED / "counters.bin").read_bytes()
    assert counters.to_list() == [counters.slots, *counters.to_vector()]


def a_window(form, seed, n=40):
    """A window of any task that could be."""
    random = Random(seed)
    plain = build(1 if form.task != "classify" else 4, n, random.randrange, with_input=True)
    tables = []
    for i, size in enumerate(form.tables):
        total = 2 * n if form.task == "detect" and i else n
        counts = [0] * size
        for _ in range(total):
            counts[random.randrange(size)] += 65536 if form.task == "segment" else 1
        tables.append(tuple(counts))
    sums = [random.randrange(-100, 100) * bool(n) for _ in range(form.sensors)]
    sensors = tuple(sums + [random.randrange(1000) * bool(n) for _ in range(form.sensors)])
    flat = plain.to_vector() + [value for table in tables for value in table] + list(sensors)
    return Counters.from_vector(plain.slots, flat, form)


def sent(counters):
    return DriftSummary("11" * 8, "22" * 16, 7, "33" * 4, 3, 1_700_000_000_000, 60_000, counters)


windows = st.builds(a_window, st.sampled_from(FORMS), st.integers(0, 9999), st.integers(0, 60))
noisy = st.builds(lambda c, seed: noised(c, 2.0, lambda r=Random(seed): 1 - r.random()), windows, st.integers(0, 99))


@settings(max_examples=60)
@given(windows | noisy)
def test_a_window_of_every_task_comes_back(counters):
    counters.check()
    assert decode(sent(counters).encode()) == sent(counters)
    assert Counters.from_list(counters.to_list()) == counters
    assert DriftState.from_json(json.loads(json.dumps(DriftState(carried=counters).to_json()))).carried == counters


@settings(max_examples=150)
@given(windows | noisy, st.data())
def test_flipped_and_cut_bytes_give_a_summary_or_a_summary_error(counters, data):
    """With a checksum that fits: whoever can compute a CRC may send anything."""
    body = bytearray(sent(counters).encode()[:-4])
    for _ in range(data.draw(st.integers(0, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(body[: data.draw(st.integers(0, len(body)) | st.just(len(body)))])
    try:
        found = decode(cut + zlib.crc32(cut).to_bytes(4, "little"))
    except SummaryError:
        return
    found.counters.check()
    assert decode(found.encode()) == found


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 14), st.binary(max_size=60)), max_size=12))
def test_sections_of_any_content_give_counters_or_a_summary_error(sections):
    body = b"".join(bytes([tag, len(content)]) + content for tag, content in sections)
    for data in (body, encode_counters(Counters.zero(2)) + body):
        try:
            decode_counters(data).check()
        except SummaryError:
            continue


@settings(max_examples=60)
@given(st.lists(st.integers(-80, 80), max_size=40))
def test_a_journal_of_any_numbers_gives_counters_or_a_summary_error(values):
    try:
        Counters.from_list(values)
    except SummaryError:
        return


PROFILE = canonical.loads((RECORDED / "profile.json").read_bytes())
CHANGES = st.dictionaries(
    st.sampled_from(["task", "scores", "inputs", "parts", "counters", "labels", "projection", "edges"]),
    st.sampled_from(["detect", "regress", "shares", "", "0000#", {}, {"kind": "series"}, [], 7, None])
    | st.fixed_dictionaries(
        {"kind": st.sampled_from(["audio", "vectors", "x"]), "offset": st.just("00000"), "scale": st.just("00000")},
        optional={"range": st.just("0000000000")},
    )
    | st.fixed_dictionaries({"names": st.just(["a"]), "edges": st.just([""]), "clusters": st.just("0000#")}),
    min_size=1,
)


@settings(max_examples=120)
@given(CHANGES)
def test_a_profile_with_any_part_replaced_is_read_or_refused_as_a_profile(changes):
    try:
        profile = ReferenceProfile.from_bytes(canonical.dumps({**PROFILE, **changes}))
    except (ProfileError, SummaryError):
        return
    assert profile.task in TASKS


@settings(max_examples=40)
@given(windows, windows)
def test_windows_add_up_or_refuse_by_form(one, two):
    if one.form == two.form and one.slots == two.slots:
        assert one.merge(two) == two.merge(one)
        assert one.merge(two).minus(two) == one
    else:
        with pytest.raises(SummaryError):
            one.merge(two)


def test_a_window_is_judged_by_its_own_profile_alone():
    profile = ReferenceProfile.from_bytes((RECORDED / "profile.json").read_bytes())
    for form in FORMS:
        with pytest.raises(StropError):
            judge(profile, sent(a_window(form, 1)), DriftState())


def test_a_window_that_counts_what_its_profile_does_not_is_refused_and_one_of_an_older_agent_is_judged():
    """Whoever forges a profile's checksum must still not make the judge fall over."""
    profile = ReferenceProfile.from_bytes((RECORDED / "profile.json").read_bytes())
    for form in FORMS:
        forged = DriftSummary("11" * 8, "22" * 16, profile.crc, "33" * 4, 3, 1, 1, a_window(form, 1, 100))
        with pytest.raises(ProfileError, match="window 3 counts what its profile does not"):
            judge(profile, forged, DriftState())
    older = DriftSummary("11" * 8, "22" * 16, profile.crc, "33" * 4, 3, 1, 1, profile.counters)
    carried = DriftState(profile_crc=profile.crc, carried=profile.counters.emptied(n_infer=3))
    assert judge(profile, older, carried)[0].n == profile.size
