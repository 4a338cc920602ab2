# SPDX-License-Identifier: Apache-2.0
"""What a device accepts as signed, over real TLS against a real repository; attacks by who could make them."""

import os
import shutil
import stat
import time

import pytest
from cryptography.hazmat.primitives import serialization
from tuf.api.metadata import Metadata

from edge_agent.adapters import tls, tuf_client
from edge_agent.adapters.enrol import enrol
from edge_contract.errors import DownloadError, EnrolmentError, SignatureError
from export.keys import signing
from fleet.adapters import ca
from fleet.adapters.tuf_repo import TufRepository

DAY = 86_400.0


def refresh(fleet, data, *wanted, now=None):
    return tuf_client.refresh(data, fleet.device_url, wanted, time.time() if now is None else now)


def test_the_helper_process_tells_length_model_and_files_of_a_signed_bundle(fleet, device, bundle, helper):
    folder, bundle_id = bundle
    fleet.publish(folder)
    found = helper(device).refresh(fleet.device_url, [bundle_id])
    assert found[bundle_id].length == (folder / "manifest.json").stat().st_size
    assert (found[bundle_id].custom["model"], found[bundle_id].custom["version"]) == ("digits", "1.0.0")
    sizes = {path.stat().st_size for path in folder.iterdir()}
    assert {blob.length for blob in found.values()} == sizes
    assert set(found) == {bundle_id, *found[bundle_id].custom["files"]}


def test_a_second_refresh_downloads_little_and_asks_for_nothing_that_it_has(fleet, device, bundle):
    fleet.publish(bundle[0])
    refresh(fleet, device, bundle[1])
    fleet.requests.clear()
    refresh(fleet, device, bundle[1])
    assert fleet.requests == ["/tuf/2.root.json", "/tuf/timestamp.json"]


def test_a_blob_that_nobody_signed_is_refused(fleet, device, bundle):
    fleet.publish(bundle[0])
    with pytest.raises(SignatureError, match="blob ffffffffffffffff is not signed in targets version 2"):
        refresh(fleet, device, "f" * 64)


def test_a_server_that_is_gone_is_a_download_error_and_changes_nothing(fleet, device, bundle, helper):
    fleet.publish(bundle[0])
    refresh(fleet, device, bundle[1])
    before = _contents(device / "tuf")
    fleet.close()
    with pytest.raises(DownloadError, match=r"no way to the server.*inference goes on"):
        helper(device).refresh(fleet.device_url, [bundle[1]])
    assert _contents(device / "tuf") == before


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# What a thief of the server's online key, or a hostile mirror, can try.


def test_targets_signed_by_another_key_are_refused_though_the_online_key_vouches_for_them(
    fleet, device, bundle, new_bundle, new_fleet
):
    fleet.publish(bundle[0])
    refresh(fleet, device, bundle[1])
    foreign = new_fleet("foreign")
    foreign_folder, foreign_id = new_bundle("9.0.0", b"malware")
    data = signing.sign_bundle(foreign.keys, foreign_folder)
    data = signing.rotate_keys(foreign.keys).targets  # its version is above the genuine one
    fleet.repository._publish(Metadata.from_bytes(data), data, time.time())
    with pytest.raises(SignatureError, match="signed by nobody whom we trust: targets was signed by 0/1 keys"):
        refresh(fleet, device, foreign_id)


def test_a_server_restored_from_an_old_copy_is_refused(fleet, device, bundle, new_bundle, tmp_path):
    fleet.publish(bundle[0])
    shutil.copytree(fleet.data / "tuf", tmp_path / "copy")
    second, second_id = new_bundle("2.0.0", b"weights 2")
    fleet.publish(second)
    refresh(fleet, device, second_id)
    shutil.copytree(tmp_path / "copy", fleet.data / "tuf", dirs_exist_ok=True)
    with pytest.raises(SignatureError, match="rolled back: New timestamp version 1 must be >= 2"):
        refresh(fleet, device, bundle[1])


def test_an_old_snapshot_below_a_new_timestamp_is_refused(fleet, device, bundle, new_bundle):
    now = time.time()
    fleet.publish(bundle[0])
    first = fleet.repository._snapshot
    second, second_id = new_bundle("2.0.0", b"weights 2")
    fleet.publish(second)
    refresh(fleet, device, second_id)
    fleet.repository._snapshot = first
    fleet.repository._sign_timestamp(now)
    with pytest.raises(SignatureError, match="rolled back: New snapshot version must be >= 2"):
        refresh(fleet, device, bundle[1])


def test_old_targets_below_a_new_snapshot_are_refused(fleet, device, bundle, new_bundle):
    now = time.time()
    fleet.publish(bundle[0])
    first = fleet.repository._targets
    second, second_id = new_bundle("2.0.0", b"weights 2")
    fleet.publish(second)
    refresh(fleet, device, second_id)
    fleet.repository._targets = first
    fleet.repository._sign_snapshot(now)
    with pytest.raises(SignatureError, match="rolled back"):
        refresh(fleet, device, bundle[1])


@pytest.mark.parametrize("name", ["timestamp", "1.snapshot", "2.targets"])
def test_one_changed_byte_of_metadata_is_refused(fleet, device, bundle, name):
    fleet.publish(bundle[0])
    data = fleet.repository.file(f"{name}.json")
    at = data.index(b'"expires"') + len('"expires": "')
    fleet.overrides[f"/tuf/{name}.json"] = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    with pytest.raises(SignatureError, match=r"metadata refused|signed by nobody whom we trust"):
        refresh(fleet, device, bundle[1])


def test_a_targets_file_with_another_digest_for_a_blob_is_refused(fleet, device, bundle):
    folder, bundle_id = bundle
    fleet.publish(folder)
    data = fleet.repository.file("2.targets.json")
    forged = data.replace(bundle_id.encode(), bundle_id[::-1].encode())
    assert forged != data
    fleet.overrides["/tuf/2.targets.json"] = forged
    with pytest.raises(SignatureError, match=r"metadata refused|signed by nobody"):
        refresh(fleet, device, bundle_id[::-1])


def test_a_target_whose_name_is_not_its_digest_is_refused_though_it_is_signed(fleet, device, bundle):
    signing.sign_bundle(fleet.keys, bundle[0])
    root, targets = signing.load(fleet.keys)
    changed = targets.signed.targets
    changed["blobs/" + "0" * 64] = changed.pop(f"blobs/{bundle[1]}")
    data = signing._sign_targets(fleet.keys, root, targets, changed, signing.at(None))
    fleet.repository._publish(Metadata.from_bytes(data), data, time.time())
    with pytest.raises(SignatureError, match="blob 0000000000000000 is not signed"):
        refresh(fleet, device, "0" * 64)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>Welcome to Hotel WiFi</html>", "metadata refused"),
        (b"", "metadata refused"),
        (b"{}", "metadata refused"),
    ],
)
def test_a_captive_portal_with_status_200_is_refused(fleet, device, bundle, body, said):
    fleet.publish(bundle[0])
    fleet.overrides["/tuf/timestamp.json"] = body
    with pytest.raises(SignatureError, match=said):
        refresh(fleet, device, bundle[1])


def test_endless_metadata_is_cut_off(fleet, device, bundle):
    fleet.publish(bundle[0])
    fleet.overrides["/tuf/timestamp.json"] = b" " * 6_000_000
    with pytest.raises(DownloadError, match="longer than"):
        refresh(fleet, device, bundle[1])


# Time.


def test_an_expired_timestamp_is_refused_and_says_that_inference_goes_on(fleet, device, bundle):
    fleet.publish(bundle[0], now=time.time() - 2 * DAY)
    with pytest.raises(
        SignatureError,
        match=r"timestamp.json is expired .*start it, or set this clock; installs wait, inference goes on",
    ):
        refresh(fleet, device, bundle[1])
    assert fleet.repository.refresh(time.time())
    assert bundle[1] in refresh(fleet, device, bundle[1])


def test_an_expired_root_names_the_command_that_renews_it(fleet, device, bundle, monkeypatch):
    fleet.publish(bundle[0])
    monkeypatch.setattr(tuf_client.time_floor, "is_synchronised", lambda: True)  # else the server is asked
    with pytest.raises(SignatureError, match=r"root.json is expired.*strop export keys rotate"):
        refresh(fleet, device, bundle[1], now=time.time() + 400 * DAY)


def test_metadata_that_expired_by_the_floor_stays_expired_for_a_clock_one_hour_behind(fleet, device, bundle):
    now = time.time()
    fleet.publish(bundle[0], now=now - 1.5 * DAY)  # expired half a day ago
    (device / "tuf").mkdir(exist_ok=True)
    tuf_client.time_floor.remember(device / "tuf", now, now)
    with pytest.raises(SignatureError, match="expired"):
        refresh(fleet, device, bundle[1], now=now - 0.9 * DAY)  # by this clock alone it would be fresh


# Legitimate change.


def test_going_back_to_an_older_bundle_by_newer_targets_is_accepted(fleet, device, bundle, new_bundle):
    first, first_id = bundle
    second, second_id = new_bundle("2.0.0", b"weights 2")
    fleet.publish(first)
    fleet.repository.publish_targets(signing.withdraw_bundle(fleet.keys, first_id), now=time.time())
    fleet.publish(second)
    assert second_id in refresh(fleet, device, second_id)
    with pytest.raises(SignatureError, match="is not signed"):
        refresh(fleet, device, first_id)
    fleet.repository.publish_targets(signing.withdraw_bundle(fleet.keys, second_id), now=time.time())
    fleet.publish(first)
    assert first_id in refresh(fleet, device, first_id)
    with pytest.raises(SignatureError, match="is not signed"):
        refresh(fleet, device, second_id)


@pytest.mark.parametrize(
    "choice", [{}, {"new_targets": True}, {"new_root": True}, {"new_root": True, "new_targets": True}]
)
def test_a_rotated_root_is_accepted(fleet, device, bundle, new_bundle, choice):
    fleet.publish(bundle[0])
    refresh(fleet, device, bundle[1])
    for _ in range(2):
        rotation = signing.rotate_keys(fleet.keys, **choice)
        fleet.repository.install_root(rotation.root, now=time.time(), targets=rotation.targets)
    second, second_id = new_bundle("2.0.0", b"weights 2")
    fleet.publish(second)
    assert second_id in refresh(fleet, device, second_id)
    assert (device / "tuf" / "root_history" / "3.root.json").exists()


def test_a_rotated_online_key_is_accepted(fleet, device, bundle):
    fleet.publish(bundle[0])
    refresh(fleet, device, bundle[1])
    rotation = signing.rotate_keys(fleet.keys, online_public=fleet.repository.new_online_key())
    fleet.repository.install_root(rotation.root, now=time.time(), targets=rotation.targets)
    assert bundle[1] in refresh(fleet, device, bundle[1])
    assert stat.S_IMODE((fleet.data / "tuf" / "online.key").stat().st_mode) == 0o600
    assert TufRepository(fleet.data / "tuf").online_public == (fleet.data / "tuf" / "online.pub").read_bytes()


def test_between_a_new_root_and_targets_to_match_devices_refuse_and_then_go_on(fleet, device, bundle):
    fleet.publish(bundle[0])
    refresh(fleet, device, bundle[1])
    rotation = signing.rotate_keys(fleet.keys, new_targets=True)
    fleet.repository.install_root(rotation.root, now=time.time())
    with pytest.raises(SignatureError, match=r"targets was signed by 0/1 keys"):
        refresh(fleet, device, bundle[1])
    fleet.repository.publish_targets(rotation.targets, now=time.time())
    assert bundle[1] in refresh(fleet, device, bundle[1])


def test_a_root_signed_only_by_new_keys_is_refused(fleet, device, bundle):
    fleet.publish(bundle[0])
    signing.rotate_keys(fleet.keys, new_root=True)
    forged = Metadata.from_bytes((fleet.keys / "root.json").read_bytes())
    old_keyid = next(iter(fleet.repository._root.signed.roles["root"].keyids))
    del forged.signatures[old_keyid]
    fleet.overrides["/tuf/2.root.json"] = forged.to_bytes()
    with pytest.raises(SignatureError, match="root was signed by 0/1 keys"):
        refresh(fleet, device, bundle[1])


# Who may ask.


def test_a_device_with_a_certificate_of_another_ca_is_refused_at_tls(fleet, device, bundle, new_fleet, tmp_path):
    fleet.publish(bundle[0])
    foreign = new_fleet("foreign")
    other = tmp_path / "other"
    enrol(other, foreign.enrol_url, foreign.new_token(), "pi-01")
    shutil.copy(device / "identity" / "ca.crt", other / "identity" / "ca.crt")
    fleet.requests.clear()
    # Which of the two depends on whether the server's alert or its reset arrives first.
    with pytest.raises((EnrolmentError, DownloadError), match="refuses this device's certificate"):
        refresh(fleet, other, bundle[1])
    assert fleet.requests == []


def test_a_device_whose_certificate_has_expired_is_told_to_enrol_again(fleet, device, bundle, make_csr):
    fleet.publish(bundle[0])
    key = serialization.load_pem_private_key((device / "identity" / "device.key").read_bytes(), None)
    expired = ca.sign_csr(fleet.data / "ca", make_csr("pi-01", key), "pi-01", now=time.time() - 400 * DAY)
    (device / "identity" / "device.crt").write_bytes(expired)
    with pytest.raises((EnrolmentError, DownloadError), match=r"enrol.*again"):
        refresh(fleet, device, bundle[1])


def test_a_device_without_a_certificate_is_refused_at_tls(fleet, device, bundle):
    fleet.publish(bundle[0])
    context = tls.verified_context((device / "identity" / "ca.crt").read_text())
    connection = tls.connect(fleet.device_url, context)
    fleet.requests.clear()
    with pytest.raises((EnrolmentError, DownloadError), match="refuses this device's certificate"):
        tls.exchange(connection, "GET", "/tuf/timestamp.json")
    assert fleet.requests == []


def test_a_foreign_server_is_refused_at_tls(fleet, device, bundle, new_fleet):
    fleet.publish(bundle[0])
    foreign = new_fleet("foreign")
    with pytest.raises(DownloadError, match="not from our fleet's CA"):
        tuf_client.refresh(device, foreign.device_url, [bundle[1]], time.time())
    assert foreign.requests == []


def test_an_unenrolled_device_is_told_to_enrol(fleet, tmp_path, helper):
    with pytest.raises(EnrolmentError, match="strop agent enrol"):
        helper(tmp_path / "nobody").refresh(fleet.device_url, ["a" * 64])


def test_metadata_cut_short_by_a_power_cut_heals(fleet, device, bundle):
    fleet.publish(bundle[0])
    refresh(fleet, device, bundle[1])
    for name in ("timestamp.json", "snapshot.json", "targets.json", "root_history/1.root.json"):
        os.truncate(device / "tuf" / name, 10)
    assert bundle[1] in refresh(fleet, device, bundle[1])
