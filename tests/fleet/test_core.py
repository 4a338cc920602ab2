# SPDX-License-Identifier: Apache-2.0
"""Registry, inventory, waves, labels and audit: tables of cases, valid and invalid side by side."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import canonical
from edge_contract.errors import ManifestError, MessageError, RegistryError, RolloutError
from edge_contract.messages import Birth, Death, DesiredState, ModelState, ReportedState
from fleet.core import audit
from fleet.core.inventory import DeviceRecord, hear_birth, hear_death, hear_reported, is_online, sync_of, want
from fleet.core.labels import read_labels, true_accuracy, wilson
from fleet.core.registry import admit
from fleet.core.rollout import plan_waves, read_request
from tests.support.fleet_bundle import Matcher, profile_of, write_bundle

DEVICES = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("specs", "waves"),
    [
        ([{"count": 1}, {"rest": True}], [["a"], ["b", "c", "d", "e"]]),
        ([{"percent": 1}, {"percent": 50}, {"rest": True}], [["a"], ["b", "c", "d"], ["e"]]),
        ([{"devices": ["c"]}, {"rest": True}], [["c"], ["a", "b", "d", "e"]]),
        ([{"count": 2}, {"devices": ["a"]}], [["b", "c"], ["a"]]),
        ([{"count": 9}, {"rest": True}], [["a", "b", "c", "d", "e"], []]),
        ([], []),
    ],
)
def test_waves_are_planned_from_their_specs(specs, waves):
    assert plan_waves(specs, DEVICES) == tuple(map(tuple, waves))


@given(st.lists(st.sampled_from([{"count": 1}, {"count": 3}, {"percent": 30}, {"rest": True}]), max_size=5))
def test_no_device_stands_in_two_waves(specs):
    planned = [device for wave in plan_waves(specs, DEVICES) for device in wave]
    assert len(planned) == len(set(planned))


@pytest.mark.parametrize(
    ("specs", "line"),
    [
        ([{"devices": ["x"]}], "rollout.waves[0]: device 'x' is not enrolled; strop fleet device list"),
        ([{"devices": ["a"]}, {"devices": ["a"]}], "rollout.waves[1]: device 'a' stands in two waves"),
        ([{"devices": ["a", "a"]}], "rollout.waves[0]: device 'a' stands in two waves"),
        ([{"devices": "a"}], "rollout.waves[0]: 'devices' is not a list of names"),
        ([{"count": 0}], "rollout.waves[0]: count = 0 is not a wave"),
        ([{"count": True}], "rollout.waves[0]: count = True is not a wave"),
        ([{"percent": 101}], "rollout.waves[0]: percent = 101 is not a wave"),
        ([{"rest": False}], "rollout.waves[0]: rest = False is not a wave"),
        (
            ["all"],
            'rollout.waves[0]: expected {"devices": […]}, {"count": n}, {"percent": p}, {"query": "…"} or {"rest": true}',  # noqa: E501
        ),
    ],
)
def test_a_wave_that_is_none_is_refused_in_one_line(specs, line):
    with pytest.raises(RolloutError) as caught:
        plan_waves(specs, DEVICES)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bundle": "x"}, "is not a SHA-256"),
        ({"model": 3}, "expected"),
        ({"soak_s": -1}, "soak_s and grace_s not negative"),
        ({"timeout_s": 0}, "timeout_s must be positive"),
        ({"max_failures": -1}, "is below 0"),
        ({"sokes": 3}, "unknown field 'sokes'"),
        ({"probation": {"inferences": 0}}, "is below 1"),
        ({"waves": "all"}, "expected a list"),
    ],
)
def test_a_request_with_a_fault_names_it(change, words):
    with pytest.raises(RolloutError, match=words):
        read_request({"model": "digits", "bundle": "a" * 64, **change})
    assert read_request({"model": "digits", "bundle": "a" * 64})[2] == [{"count": 1}, {"rest": True}]
    with pytest.raises(RolloutError, match="expected an object"):
        read_request(["digits"])


# --- inventory


def birth(boot="b1", session=1):
    return Birth("pi", boot, session, "0.1", "litert", "2.3", {"machine": "aarch64"}, 5.0)


def reported(**changes):
    slots = ModelState("b" * 64, "b" * 64, "", "", "1")
    fields = {"boot": "b1", "desired_version": 1, "models": {"digits": slots}, "config": {"heartbeat_s": 2}}
    return ReportedState(**{"device": "pi", "outbox": {}, "health": {}, "time": 9.0, **fields, **changes})


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2), (2, 3, 0, 1), (0, 2, 1, 3)])
def test_births_and_deaths_fold_to_the_same_in_any_order(order):
    """Retained messages of two topics have no order: the death of session 1 may come after the birth of 2."""
    said = [birth(session=1), Death("pi", "b1", 1), birth(session=2), Death("pi", "b1", 2)]
    record = DeviceRecord("pi", 0.0)
    for i in order:
        message = said[i]
        record = hear_birth(record, message, 10.0) if isinstance(message, Birth) else hear_death(record, message)
    assert record.session == 2
    assert not is_online(record, 10.0)


def test_a_death_of_an_older_session_does_not_end_the_present_one():
    record = hear_birth(DeviceRecord("pi", 0.0), birth(session=2), 10.0)
    assert is_online(hear_death(record, Death("pi", "b1", 1)), 11.0)
    assert not is_online(hear_death(record, Death("pi", "b1", 2)), 11.0)
    assert hear_birth(record, birth(session=1), 12.0) == record


def test_a_new_boot_is_online_after_the_death_of_the_old_one():
    record = hear_death(hear_birth(DeviceRecord("pi", 0.0), birth(), 10.0), Death("pi", "b1", 1))
    assert is_online(hear_birth(record, birth("b2", 1), 20.0), 21.0)


def test_a_retained_message_is_no_sign_of_life():
    record = hear_reported(hear_birth(DeviceRecord("pi", 0.0), birth(), None), reported(), None)
    assert record.last_seen == 0.0
    assert not is_online(record, 1e9)


@pytest.mark.parametrize(
    ("beat", "silence", "online"), [(2, 29, True), (2, 31, False), (60, 200, True), ("odd", 31, False)]
)
def test_patience_follows_the_heartbeat(beat, silence, online):
    record = hear_birth(DeviceRecord("pi", 0.0), birth(), 0.0)
    record = hear_reported(record, reported(config={"heartbeat_s": beat}), 0.0)
    assert is_online(record, float(silence)) is online


def test_sync_says_what_is_missing():
    record = hear_reported(DeviceRecord("pi", 0.0), reported(), 1.0)
    assert sync_of(record).ok
    other = replace(record, desired=DesiredState(1, {"digits": "c" * 64}, {}))
    assert sync_of(other).why == "digits: runs bbbbbbbb, wanted cccccccc"
    assert sync_of(replace(record, desired=DesiredState(3, {}, {}))).why == "settings 1 of 3 taken over"
    assert sync_of(DeviceRecord("pi", 0.0, desired=DesiredState(1, {"m": "d" * 64}, {}))).why.startswith(
        "m: runs nothing"
    )


def test_desired_versions_grow_with_every_change_and_only_then():
    one = want(DesiredState(7, {}, {}), models={"digits": "b" * 64}, config={"source": "x"})
    assert (one.version, want(one, models={"digits": "b" * 64}).version) == (8, 8)
    assert want(one, models={"digits": ""}).models == {}


# --- registry


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "b"
    bundle_id = write_bundle(folder, "1.0.0", profile_of(Matcher()))
    sizes = {canonical.digest(path.read_bytes()): path.stat().st_size for path in folder.iterdir()}
    return bundle_id, (folder / "manifest.json").read_bytes(), sizes


def admitted(bundle, *, without="", unsigned="", taken=None, sizes=None):
    bundle_id, manifest, held = bundle
    held = {**held, **(sizes or {})}
    digest = {e["path"]: e["sha256"] for e in canonical.loads(manifest).get("files", [])}
    return admit(
        bundle_id,
        manifest,
        held=lambda sha: None if sha == digest.get(without) else held.get(sha),
        authorises=lambda sha: sha != digest.get(unsigned),
        known=lambda _model, _version: taken,
        now=1.0,
    )


def test_a_whole_and_signed_bundle_is_admitted(bundle):
    version = admitted(bundle)
    assert (version.model, version.version, version.bundle) == ("digits", "1.0.0", bundle[0])
    assert admitted(bundle, taken=bundle[0]).bundle == bundle[0]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"without": "model.tflite"}, r"file 'model.tflite' is missing; upload blob"),
        ({"unsigned": "labels.txt"}, r"file 'labels.txt' is not in the signed targets"),
        ({"taken": "f" * 64}, r"version 1.0.0 is already bundle ffffffffffff"),
    ],
)
def test_a_bundle_with_a_fault_is_refused_by_the_name_of_the_file(bundle, fault, words):
    with pytest.raises(RegistryError, match=words):
        admitted(bundle, **fault)


def test_a_blob_of_another_size_and_a_foreign_manifest_are_refused(bundle):
    bundle_id, manifest, sizes = bundle
    with pytest.raises(RegistryError, match="bytes, the manifest says"):
        admitted(bundle, sizes=dict.fromkeys(sizes, 3))
    with pytest.raises(RegistryError, match="are not the bundle's"):
        admitted((bundle_id, manifest + b" ", sizes))
    with pytest.raises(ManifestError):
        admitted((canonical.digest(b"{}"), b"{}", sizes))


# --- labels


def test_true_accuracy_counts_only_what_has_a_label():
    found = true_accuracy([("a", 1), ("b", 2), ("a", 3), ("z", 1)], {"a": 1, "b": 2})
    assert (found.n, found.correct) == (3, 2)
    assert true_accuracy([("z", 1)], {"a": 1}) is None


@given(st.integers(0, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_stays_in_its_range(case):
    correct, n = case
    low, high = wilson(correct, n)
    assert 0.0 <= low <= high <= 1.0
    if n:
        # Rounding may put the share of 0 or 1 a last bit outside of its own interval.
        assert low - 1e-12 <= correct / n <= high + 1e-12


@pytest.mark.parametrize(
    "document",
    [None, {}, {"device": "a"}, {"device": 3, "labels": {}}, {"device": "a", "labels": {"r": "x"}},
     {"device": "a", "labels": {"r": True}}, {"device": "a", "labels": {"r": -1}}, {"labels": {"r": 1}}],
)  # fmt: skip
def test_labels_that_are_none_are_refused(document):
    with pytest.raises(MessageError, match="labels"):
        read_labels(document)


# --- audit


def chain(n):
    entries, last = [], None
    for i in range(n):
        last = audit.append(last, time=float(i), actor="op", action="a", subject=str(i), detail={"i": i})
        entries.append(last)
    return entries


def test_an_untouched_chain_holds():
    assert audit.first_broken(chain(5)) is None
    assert audit.first_broken([]) is None


@pytest.mark.parametrize("field", ["time", "actor", "action", "subject", "detail"])
def test_a_changed_entry_breaks_the_chain_at_its_number(field):
    entries = chain(5)
    entries[2] = replace(entries[2], **{field: {"time": 9.0, "detail": {"i": 99}}.get(field, "changed")})
    assert audit.first_broken(entries) == 3


def test_a_missing_entry_breaks_the_chain():
    entries = chain(5)
    assert audit.first_broken(entries[:2] + entries[3:]) == 3
    assert audit.first_broken(entries[1:]) == 1
