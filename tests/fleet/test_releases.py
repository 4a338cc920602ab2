# SPDX-License-Identifier: Apache-2.0
"""Release channels: what stands where, how it came there, what is good to go back to, and what may be deleted."""

import itertools
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_contract import canonical
from edge_contract.errors import RegistryError, StropError
from fleet.adapters import channels, tables, version_views
from fleet.core.channels import LADDER, Move, check_channel, good_before
from tests.support.registry import Registry

NO_RULES = "rule = []"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("registry")


@pytest.fixture
def registry(folder):
    made = Registry(folder)
    made.rules(NO_RULES)
    yield made
    made.store.close()


def history(registry, channel="production"):
    return [(m.verb, m.old, m.new) for m in registry.read(channels.moves, "digits", channel)]


def test_a_version_climbs_the_ladder_and_the_history_says_who_and_why(registry):
    one = registry.add("1.0")
    for channel in LADDER:
        move = registry.releases.promote("digits", "1.0", "berta", reason="looks\r\ngood")
        assert (move.channel, move.old, move.new, move.actor, move.reason) == (channel, "", one, "berta", "looks good")
        assert registry.read(channels.bundle_of, "digits", channel) == one
    with pytest.raises(RegistryError, match="production already"):
        registry.releases.promote("digits", "1.0", "berta")
    (shown,) = registry.read(version_views.channels_json, "digits")
    assert [m["channel"] for m in shown["history"]] == list(reversed(LADDER))
    audit = [e.action for e in registry.read(tables.all_audit)]
    assert audit.count("channel.promote") == 3


def test_channels_of_ones_own_and_bundle_prefixes_are_taken_and_odd_names_are_not(registry):
    one = registry.add("1.0")
    registry.releases.set("digits", "site-b", one[:12], "op")
    assert registry.read(channels.channels_of, one).keys() == {"site-b"}
    for name in ("../etc", "a b", "Prod", "x" * 33, "", "1st", "a\r\nset-cookie: b"):
        with pytest.raises(RegistryError, match="is not a channel name"):
            registry.releases.set("digits", name, "1.0", "op")
    with pytest.raises(RegistryError, match=r"has no version '\.\./1'"):
        registry.releases.set("digits", "canary", "../1", "op")


def test_demoting_goes_back_to_what_was_good_and_never_to_what_was_taken_back(registry):
    a, b, c = (registry.add(v) for v in ("1.0", "1.1", "1.2"))
    for version in ("1.0", "1.1"):
        registry.releases.set("digits", "production", version, "op")
    assert registry.releases.demote("digits", "production", "op", reason="crashes").new == a
    registry.releases.set("digits", "production", "1.2", "op")
    assert registry.read(channels.last_good, "digits", c) == a  # not 1.1: somebody took it back
    assert registry.releases.demote("digits", "production", "op").new == a
    assert registry.releases.demote("digits", "production", "op").new == ""
    with pytest.raises(RegistryError, match="nothing stands there"):
        registry.releases.demote("digits", "production", "op")
    registry.releases.set("digits", "production", "1.1", "op")  # brought in anew: good again
    registry.releases.set("digits", "production", "1.2", "op")
    assert registry.read(channels.last_good, "digits", c) == b


def test_the_last_good_version_is_what_stands_in_production_or_stood_there(registry):
    a, b = registry.add("1.0"), registry.add("1.1")
    assert registry.read(channels.last_good, "digits", b) is None
    registry.releases.set("digits", "production", "1.0", "op")
    assert registry.read(channels.last_good, "digits", b) == a
    assert registry.read(channels.last_good, "digits", a) is None
    registry.releases.set("digits", "production", "1.1", "op")
    registry.releases.retire("digits", "1.0", "op")
    assert registry.read(channels.last_good, "digits", b) is None


def test_a_fleet_without_channels_goes_back_to_its_last_completed_rollout(registry):
    a, b = registry.add("1.0"), registry.add("1.1")
    for bundle in (a, b):  # nobody is enrolled: each completes at once
        registry.operations.rollouts.start({"model": "digits", "bundle": bundle, "waves": [{"rest": True}]}, "op")
    assert registry.read(channels.last_good, "digits", b) == a
    assert registry.read(channels.last_good, "digits", a) == b


def test_a_retired_version_enters_no_channel_and_no_rollout_until_it_is_taken_back(registry):
    bundle = registry.add("1.0")
    registry.releases.set("digits", "canary", "1.0", "op")
    assert registry.releases.retire("digits", "1.0", "op", reason="old")["left"] == ["canary"]
    with pytest.raises(RegistryError, match=r"it is retired.*--undo"):
        registry.releases.promote("digits", "1.0", "op")
    plan = {"model": "digits", "bundle": bundle, "waves": [{"rest": True}]}
    with pytest.raises(RegistryError, match="it is retired"):
        registry.operations.rollouts.start(plan, "op")
    registry.releases.retire("digits", "1.0", "op", undo=True)
    with pytest.raises(RegistryError, match="is not a channel name"):
        registry.operations.rollouts.start({**plan, "channel": "A B"}, "op")
    assert registry.releases.promote("digits", "1.0", "op").channel == "candidate"
    registry.releases.set("digits", "production", "1.0", "op")
    with pytest.raises(RegistryError, match=r"stands in production.*channel demote"):
        registry.releases.retire("digits", "1.0", "op")


def test_what_is_in_use_is_not_deleted_and_the_refusal_names_where(registry):
    one = registry.add("1.0")
    registry.releases.set("digits", "production", "1.0", "op")
    registry.releases.set("digits", "site-b", "1.0", "op")
    for name in ("pi-1", "pi-2", "pi-3", "pi-4"):
        registry.device(name, running=one, wanted=one)
    with pytest.raises(RegistryError) as refused:
        registry.releases.delete("digits", "1.0", "op")
    line = str(refused.value)
    for words in ("channel production", "channel site-b", "runs on pi-1, pi-2, pi-3 and 1 more", "wanted on pi-1"):
        assert words in line
    assert registry.read(tables.model, one) is not None


def test_a_version_of_a_live_rollout_is_not_deleted(registry):
    one = registry.add("1.0")
    registry.device("pi-1")
    started = registry.operations.rollouts.start({"model": "digits", "bundle": one, "waves": [{"rest": True}]}, "op")
    with pytest.raises(RegistryError, match=f"rollout {started.id} .RUNNING.; order "):
        registry.releases.delete("digits", "1.0", "op")


def test_deleting_an_unused_version_lets_go_of_the_files_that_no_other_one_needs(registry):
    for sha256, _, _ in list(registry.blobs.held()):
        registry.blobs.delete(sha256)
    one, two = registry.add("1.0"), registry.add("1.1")
    before = {sha256 for sha256, _, _ in registry.blobs.held()}
    registry.releases.delete("digits", "1.0", "op", reason="mistake")
    assert registry.releases.sweep_files("op", grace_s=3600.0) == {"files": 0, "bytes": 0}  # within the grace period
    registry.now += 3700.0
    gone = registry.releases.sweep_files("op", grace_s=3600.0)
    after = {sha256 for sha256, _, _ in registry.blobs.held()}
    assert gone["files"] == 2  # manifest and model file; golden.json and parity.json are the other version's, too
    assert one not in after
    assert two in after
    assert after == registry.read(_needed) < before
    assert registry.read(channels.registered_by, one) == ""
    registry.add("1.0")  # the name is free again


def _needed(db):
    found = set()
    for version in tables.models(db):
        found |= {version.bundle, *(entry.sha256 for entry in version.manifest.files)}
    return found


def test_a_sweep_leaves_what_an_upload_under_way_has_sent_or_found(registry):
    data = b"half of an upload"
    name = canonical.digest(data)
    registry.blobs.put(name, [data])
    registry.now = 4e9  # a file from long ago …
    assert registry.operations.models.put_blob(name, [], "op") == len(data)  # … that a client finds here
    stamp = {sha256: touched for sha256, _, touched in registry.blobs.held()}[name]
    registry.now = stamp + 1800.0
    registry.releases.sweep_files("op", grace_s=3600.0)
    assert registry.blobs.size(name) == len(data)
    registry.now = stamp + 3601.0
    registry.releases.sweep_files("op", grace_s=3600.0)
    assert registry.blobs.size(name) is None


def test_callers_at_once_leave_one_history_without_a_gap(registry):
    for version in ("1.0", "1.1"):
        registry.add(version)
    gate = threading.Barrier(4)

    def caller(version):
        gate.wait()
        for _ in range(6):
            try:
                registry.releases.set("digits", "production", version, "op")
            except RegistryError as error:
                assert "already" in str(error)

    threads = [threading.Thread(target=caller, args=(v,)) for v in ("1.0", "1.1") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    moves = list(reversed(registry.read(channels.moves, "digits", "production")))
    assert [m.number for m in moves] == list(range(1, len(moves) + 1))
    assert all(one.new == two.old for one, two in itertools.pairwise(moves))
    assert registry.read(channels.bundle_of, "digits", "production") == moves[-1].new


VERBS = st.sampled_from(["set", "promote", "demote", "retire", "restore", "delete"])
STEPS = st.lists(st.tuples(VERBS, st.sampled_from("ab"), st.sampled_from(["production", "canary"])), max_size=14)


@settings(max_examples=10)
@given(steps=STEPS)
def test_whatever_is_asked_in_whatever_order_the_channels_are_what_their_history_says(folder, steps):
    registry = Registry(folder)
    registry.rules(NO_RULES)
    try:
        ids = {name: registry.add(name) for name in "ab"}
        for verb, version, channel in steps:
            registry.now += 1
            try:
                _ask(registry.releases, verb, version, channel)
            except StropError as error:
                assert str(error)
        for channel in LADDER:
            moves = registry.read(channels.moves, "digits", channel)
            stands = registry.read(channels.bundle_of, "digits", channel) or ""
            assert stands == (moves[0].new if moves else "")
            assert stands in ("", *registry.read(channels.usable, "digits"))
            for bundle in ids.values():
                good = registry.read(channels.last_good, "digits", bundle)
                assert good is None or (good != bundle and good in registry.read(channels.usable, "digits"))
    finally:
        registry.store.close()


def _ask(releases, verb, version, channel):
    if verb == "set":
        releases.set("digits", channel, version, "op")
    elif verb == "demote":
        releases.demote("digits", channel, "op")
    elif verb == "promote":
        releases.promote("digits", version, "op")
    elif verb == "delete":
        releases.delete("digits", version, "op")
    else:
        releases.retire("digits", version, "op", undo=verb == "restore")


MOVES = st.lists(
    st.tuples(st.sampled_from(["set", "promote", "demote", "retire", "rules"]), st.sampled_from(["", "a", "b", "c"])),
    max_size=12,
)


@given(moves=MOVES, leaving=st.sampled_from("abc"), usable=st.frozensets(st.sampled_from("abc")))
def test_what_is_good_to_go_back_to_was_not_taken_back_since_it_came(moves, leaving, usable):
    made, standing = [], ""
    for number, (verb, new) in enumerate(moves, 1):
        made.append(Move(number, "m", "production", verb, standing, new, float(number), "op"))
        standing = new
    good = good_before(reversed(made), leaving, usable)
    if not good:
        for came in (m for m in made if m.new in usable - {leaving}):
            assert any(m.number > came.number and m.verb in ("demote", "retire") and m.old == came.new for m in made)
        return
    assert good in usable
    assert good != leaving
    last = max(m.number for m in made if m.new == good)
    assert not any(m.verb in ("demote", "retire") and m.old == good for m in made if m.number > last)


@given(name=st.text(max_size=40))
def test_a_channel_name_that_is_taken_can_stand_in_a_path_and_in_a_header(name):
    try:
        check_channel(name)
    except RegistryError as error:
        assert "\n" not in str(error)
        return
    assert name.isascii()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_channels_rules_and_evidence_are_the_same_on_either_database(open_store, tmp_path):
    registry = Registry(tmp_path, open_store)
    registry.rules("[[rule]]\nchannel = 'production'\nautomatic = true\nparity = true\napprovals = 1")
    one, two = registry.add("1.0"), registry.add("1.1")
    registry.releases.promote("digits", "1.0", "op")
    assert [move.new for move in registry.promotion.approve("digits", "1.1", "berta")] == [two]
    registry.releases.set("digits", "production", "1.0", "op", force=True, reason="pilot")
    assert registry.read(channels.last_good, "digits", two) == one
    assert registry.read(version_views.version_json, "digits", "1.1")["rules"]["production"]["met"]
    assert [row["version"] for row in registry.read(version_views.found_by, "channel:production")] == ["1.0"]
    with pytest.raises(RegistryError, match="in use: channel candidate; channel production"):
        registry.releases.delete("digits", "1.0", "op")
    registry.releases.delete("digits", "1.1", "op")
    assert registry.read(channels.last_good, "digits", one) is None
