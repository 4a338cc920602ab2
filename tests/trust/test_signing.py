# SPDX-License-Identifier: Apache-2.0
"""The workstation's keys, and what the server takes from them: foreign, old and damaged files are refused."""

import json
import shutil
import stat
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Metadata

from edge_contract.errors import BundleError, SignatureError, StoreError, UsageError
from export.keys import signing
from fleet.adapters.tuf_checks import checked_targets
from fleet.adapters.tuf_repo import TufRepository

DAY = 86_400.0


@pytest.fixture
def repository(tmp_path):
    return TufRepository.create(tmp_path / "tuf")


@pytest.fixture
def keys(tmp_path, repository):
    signing.create_keys(tmp_path / "keys", repository.online_public)
    repository.install_root((tmp_path / "keys" / "root.json").read_bytes(), now=time.time())
    return tmp_path / "keys"


def targets_of(data):
    return Metadata.from_bytes(data).signed


# The keys folder.


def test_private_keys_are_readable_by_nobody_else(keys, repository, tmp_path):
    private = [*keys.glob("*.key"), tmp_path / "tuf" / "online.key"]
    assert len(private) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}


def test_keys_are_never_made_over_keys(keys, repository):
    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    with pytest.raises(SignatureError, match="keys are here already"):
        signing.create_keys(keys, repository.online_public)
    assert {path.name: path.read_bytes() for path in keys.iterdir()} == before


@pytest.mark.parametrize("pem", [b"", b"nonsense"])
def test_an_online_key_that_is_none_is_refused_before_anything_is_written(tmp_path, pem):
    with pytest.raises(SignatureError, match=r"give <data>/tuf/online\.pub"):
        signing.create_keys(tmp_path / "keys", pem)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize(("root_keys", "threshold"), [(1, 2), (0, 0), (3, 0)])
def test_a_threshold_that_no_keys_can_reach_is_wrong_usage(tmp_path, repository, root_keys, threshold):
    with pytest.raises(UsageError, match="root keys"):
        signing.create_keys(tmp_path / "k", repository.online_public, root_keys=root_keys, threshold=threshold)


def test_a_bundle_is_signed_with_each_file_and_its_manifest(keys, bundle):
    folder, bundle_id = bundle
    signed = targets_of(signing.sign_bundle(keys, folder))
    assert signed.version == 2
    assert {target.length for target in signed.targets.values()} == {path.stat().st_size for path in folder.iterdir()}
    custom = signed.targets[f"blobs/{bundle_id}"].custom
    assert (custom["model"], custom["version"], len(custom["files"])) == ("digits", "1.0.0", 3)


def test_signing_the_same_bundle_again_changes_nothing_until_half_a_year_has_passed(keys, bundle):
    first = signing.sign_bundle(keys, bundle[0])
    assert signing.sign_bundle(keys, bundle[0]) == first
    later = signing.sign_bundle(keys, bundle[0], now=time.time() + 200 * DAY)
    assert targets_of(later).version == targets_of(first).version + 1


def test_targets_are_cumulative_and_a_withdrawn_bundle_leaves_shared_files(keys, bundle, new_bundle):
    second, second_id = new_bundle("2.0.0", b"weights 2")
    signing.sign_bundle(keys, bundle[0])
    both = set(targets_of(signing.sign_bundle(keys, second)).targets)
    assert {f"blobs/{bundle[1]}", f"blobs/{second_id}"} <= both
    left = set(targets_of(signing.withdraw_bundle(keys, bundle[1])).targets)
    gone = both - left
    assert len(gone) == 2  # the manifest and the weights; labels and golden files are the second bundle's, too
    assert f"blobs/{bundle[1]}" in gone
    with pytest.raises(SignatureError, match="no bundle"):
        signing.withdraw_bundle(keys, bundle[1])


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "labels.txt"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_bundle_is_never_signed(keys, bundle, name, damage):
    path, before = bundle[0] / name, (keys / "targets.json").read_bytes()
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(BundleError, match=f"{name}: .*build the bundle again"):
        signing.sign_bundle(keys, bundle[0])
    assert (keys / "targets.json").read_bytes() == before


def test_keys_that_root_json_does_not_name_cannot_sign(keys, bundle, tmp_path, repository):
    signing.create_keys(tmp_path / "other", repository.online_public)
    next(keys.glob("targets-*.key")).unlink()
    shutil.copy(next((tmp_path / "other").glob("targets-*.key")), keys)
    with pytest.raises(SignatureError, match="role targets: 0 of its keys are here, 1 must sign"):
        signing.sign_bundle(keys, bundle[0])


def test_a_targets_file_of_somebody_else_is_not_signed_over(keys, bundle, tmp_path, repository):
    signing.create_keys(tmp_path / "other", repository.online_public)
    shutil.copy(tmp_path / "other" / "targets.json", keys)
    with pytest.raises(SignatureError, match=r"signed by nobody whom root\.json names"):
        signing.sign_bundle(keys, bundle[0])


@pytest.mark.parametrize("name", ["root.json", "targets.json"])
def test_a_missing_or_damaged_file_of_the_folder_is_one_clear_line(keys, bundle, name):
    (keys / name).write_bytes(b"{")
    with pytest.raises(SignatureError, match=f"{name}: not TUF metadata; restore it"):
        signing.sign_bundle(keys, bundle[0])
    (keys / name).unlink()
    with pytest.raises(SignatureError, match=f"{name}: cannot be read: No such file.*strop export keys init"):
        signing.sign_bundle(keys, bundle[0])


def test_rotation_deletes_retired_keys_and_no_others(keys):
    (keys / "foreign.key").write_bytes(next(keys.glob("root-*.key")).read_bytes())
    old_targets = next(keys.glob("targets-*.key"))
    signing.rotate_keys(keys, new_targets=True)
    assert not old_targets.exists()
    assert len(list(keys.glob("targets-*.key"))) == 1
    assert (keys / "foreign.key").exists()  # a copy of a root key that is still in use


def test_a_rotation_that_lost_power_between_its_two_files_is_finished_by_signing_again(keys, bundle, repository):
    before = (keys / "targets.json").read_bytes()
    signing.rotate_keys(keys, new_targets=True)
    (keys / "targets.json").write_bytes(before)  # root.json was written, targets.json was not
    data = signing.sign_bundle(keys, bundle[0])
    repository.install_root((keys / "root.json").read_bytes(), now=time.time(), targets=data)
    assert repository.authorises(bundle[1])


def test_two_of_three_root_keys_must_be_at_hand(tmp_path, repository):
    keys = tmp_path / "many"
    signing.create_keys(keys, repository.online_public, root_keys=3, threshold=2)
    first, second, _ = sorted(keys.glob("root-*.key"))
    first.unlink()
    repository.install_root((keys / "root.json").read_bytes(), now=time.time())
    rotation = signing.rotate_keys(keys)
    repository.install_root(rotation.root, now=time.time(), targets=rotation.targets)
    second.unlink()
    with pytest.raises(SignatureError, match="role root: 1 of its keys are here, 2 must sign"):
        signing.rotate_keys(keys)


# What the server takes.


def test_a_bundle_signed_by_a_foreign_key_is_refused_and_nothing_changes(keys, repository, bundle, tmp_path):
    repository.publish_targets(signing.sign_bundle(keys, bundle[0]), now=time.time())
    before = repository.file("timestamp.json")
    signing.create_keys(tmp_path / "other", repository.online_public)
    signing.sign_bundle(tmp_path / "other", bundle[0])
    foreign = signing.rotate_keys(tmp_path / "other").targets
    with pytest.raises(SignatureError, match=r"targets\.json: signed by nobody whom we trust; sign it"):
        repository.publish_targets(foreign, now=time.time())
    assert repository.file("timestamp.json") == before


def test_old_targets_are_refused_and_the_published_ones_again_change_nothing(keys, repository, bundle, new_bundle):
    old = signing.sign_bundle(keys, bundle[0])
    new = signing.sign_bundle(keys, new_bundle("2.0.0", b"2")[0])
    repository.publish_targets(new, now=time.time())
    before = repository.file("timestamp.json")
    repository.publish_targets(new, now=time.time())
    assert repository.file("timestamp.json") == before
    with pytest.raises(SignatureError, match="version 2 is not newer than 3"):
        repository.publish_targets(old, now=time.time())


def test_of_two_workstations_that_sign_one_version_the_second_is_refused(
    keys, repository, bundle, new_bundle, tmp_path
):
    shutil.copytree(keys, tmp_path / "second")
    repository.publish_targets(signing.sign_bundle(keys, bundle[0]), now=time.time())
    other = signing.sign_bundle(tmp_path / "second", new_bundle("2.0.0", b"2")[0])
    with pytest.raises(SignatureError, match="version 2 is not newer than 2; sign again, starting from the published"):
        repository.publish_targets(other, now=time.time())


def test_a_target_whose_name_is_not_its_digest_is_refused(keys, repository, bundle):
    signing.sign_bundle(keys, bundle[0])
    root, targets = signing.load(keys)
    changed = targets.signed.targets
    changed["blobs/" + "0" * 64] = changed.pop(f"blobs/{bundle[1]}")
    data = signing._sign_targets(keys, root, targets, changed, signing.at(None))
    with pytest.raises(SignatureError, match="is not blobs/<its SHA-256>"):
        repository.publish_targets(data, now=time.time())


def test_targets_before_a_root_are_refused(tmp_path, bundle):
    repository = TufRepository.create(tmp_path / "empty")
    signing.create_keys(tmp_path / "k", repository.online_public)
    with pytest.raises(SignatureError, match=r"no root\.json is installed; strop fleet trust KEYS/root\.json"):
        repository.publish_targets(signing.sign_bundle(tmp_path / "k", bundle[0]), now=time.time())
    with pytest.raises(SignatureError, match=r"no root\.json is installed"):
        repository.root_bytes


@pytest.mark.parametrize("kind", ["root", "targets"])
def test_expired_files_of_the_workstation_are_refused(keys, repository, bundle, kind):
    data, later = signing.sign_bundle(keys, bundle[0]), time.time() + 366 * DAY
    with pytest.raises(SignatureError, match=r"expired on .*strop export keys rotate"):
        if kind == "root":
            repository.install_root(signing.rotate_keys(keys).root, now=later)
        else:
            repository.publish_targets(data, now=later)


def test_a_root_for_another_servers_online_key_is_refused(repository, tmp_path):
    stranger = TufRepository.create(tmp_path / "stranger")
    signing.create_keys(tmp_path / "k", stranger.online_public)
    with pytest.raises(
        SignatureError, match=r"another server's online key; strop export keys rotate --online .*online\.pub"
    ):
        repository.install_root((tmp_path / "k" / "root.json").read_bytes(), now=time.time())


def test_another_fleets_root_cannot_follow_ours(keys, repository, tmp_path):
    signing.create_keys(tmp_path / "other", repository.online_public)
    foreign = signing.rotate_keys(tmp_path / "other").root
    with pytest.raises(SignatureError, match=r"root\.json: signed by nobody whom we trust"):
        repository.install_root(foreign, now=time.time())


def test_roots_follow_one_another_without_a_gap(keys, repository):
    signing.rotate_keys(keys)
    third = signing.rotate_keys(keys).root
    with pytest.raises(SignatureError, match=r"version 3 does not follow 1; install 2\.root\.json first"):
        repository.install_root(third, now=time.time())
    for version in (2, 3, 3):
        repository.install_root((keys / f"{version}.root.json").read_bytes(), now=time.time())
    with pytest.raises(SignatureError, match="version 2 does not follow 3"):
        repository.install_root((keys / "2.root.json").read_bytes(), now=time.time())


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_flipped_bit_of_targets_changes_what_is_authorised(keys, bundle, position, bit):
    genuine = signing.sign_bundle(keys, bundle[0])
    data = bytearray(genuine)
    data[position % len(data)] ^= 1 << bit
    try:
        taken = checked_targets(bytes(data), signing.load(keys)[0].signed, 0, time.time())
    except SignatureError:
        return
    assert taken.signed == targets_of(genuine)  # such as a signature's hex digit in upper case


# The online half.


def test_the_server_comes_back_as_it_was(keys, repository, bundle, tmp_path):
    repository.publish_targets(signing.sign_bundle(keys, bundle[0]), now=time.time())
    again = TufRepository(tmp_path / "tuf")
    assert again.targets_version == 2
    assert again.authorises(bundle[1])
    assert not again.authorises("0" * 64)
    assert not again.refresh(time.time())


def test_a_crash_before_the_timestamp_leaves_the_old_state(keys, repository, bundle, tmp_path):
    repository.publish_targets((keys / "targets.json").read_bytes(), now=time.time())
    shutil.copytree(tmp_path / "tuf", tmp_path / "crashed")
    repository.publish_targets(signing.sign_bundle(keys, bundle[0]), now=time.time())
    for name in ("2.targets.json", "2.snapshot.json"):
        shutil.copy(tmp_path / "tuf" / name, tmp_path / "crashed")
    again = TufRepository(tmp_path / "crashed")
    assert (again.targets_version, again.authorises(bundle[1])) == (1, False)
    again.publish_targets((keys / "targets.json").read_bytes(), now=time.time())
    assert again.authorises(bundle[1])


def test_refresh_signs_what_has_used_up_half_of_its_life(keys, repository, bundle):
    now = time.time()
    assert not repository.refresh(now)  # nothing is published yet
    repository.publish_targets(signing.sign_bundle(keys, bundle[0]), now=now)
    assert not repository.refresh(now + 0.4 * DAY)
    assert repository.refresh(now + 0.6 * DAY)
    timestamp = json.loads(repository.file("timestamp.json"))["signed"]
    assert timestamp["version"] == 2
    assert timestamp["meta"]["snapshot.json"]["version"] == 1
    assert repository.refresh(now + 4 * DAY)
    assert json.loads(repository.file("timestamp.json"))["signed"]["meta"]["snapshot.json"]["version"] == 2


def test_a_server_whose_clock_ran_ahead_signs_anew_once_it_is_right(keys, repository, bundle):
    now = time.time()
    repository.publish_targets(signing.sign_bundle(keys, bundle[0]), now=now + 30 * DAY)
    assert repository.refresh(now)
    assert not repository.refresh(now + 60)


def test_a_year_of_refreshing_keeps_few_files(keys, repository, bundle, tmp_path):
    now = time.time()
    repository.publish_targets(signing.sign_bundle(keys, bundle[0]), now=now)
    for half_week in range(1, 40):
        repository.refresh(now + half_week * 3.6 * DAY)
    assert len(list((tmp_path / "tuf").glob("*.snapshot.json"))) == 16


@pytest.mark.parametrize(
    "name", ["online.key", "../tuf/online.key", "root.json", "0.root.json", "1.root.json/", "1.root.json\n", ""]
)
def test_a_name_that_is_not_ours_is_not_served(keys, repository, name):
    assert repository.file(name) is None


def test_a_repository_is_made_once_and_says_when_its_key_is_gone(repository, tmp_path):
    with pytest.raises(StoreError, match="already"):
        TufRepository.create(tmp_path / "tuf")
    (tmp_path / "tuf" / "online.key").unlink()
    with pytest.raises(StoreError, match="online key cannot be read"):
        TufRepository(tmp_path / "tuf")
