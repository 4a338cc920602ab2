# SPDX-License-Identifier: Apache-2.0
"""Backup and restore: a server goes on from a backup taken while it ran; damaged and hostile files are refused."""

import io
import json
import stat
import tarfile

import pytest
import zstandard

from edge_contract.errors import StoreError, UsageError
from edge_contract.states import Phase, Status
from fleet.adapters.backup import create, restore
from tests.support.fleet_server import FleetProcess, SimulatedDevice, until


def unpacked(path):
    """Return the members of a backup: name → bytes."""
    with zstandard.ZstdDecompressor().stream_reader(path.read_bytes()) as packed:
        data = packed.read()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def packed(path, members):
    """Write members as a backup."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    path.write_bytes(zstandard.compress(raw.getvalue()))
    return path


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    """A small data folder and its backup."""
    import time

    from fleet.adapters import credentials, tables
    from fleet.adapters.stores import open_store

    folder = tmp_path_factory.mktemp("backup")
    credentials.init(folder / "data", now=time.time())
    store = open_store(folder / "data")
    entry = {"time": 1.0, "actor": "op", "action": "x", "subject": "y", "detail": {}}
    store.write(lambda db: tables.add_audit(db, **entry))
    create(folder / "data", folder / "one.strop", now=5.0)
    store.close()
    return folder / "one.strop"


def test_a_server_goes_on_from_a_backup_that_was_taken_while_it_ran(new_server, bundles, tmp_path):
    server = new_server()
    server.trust()
    for folder, _ in list(bundles.values())[:2]:
        server.register(folder)
    device = server.device(tmp_path / "pi", "pi").connect()
    rollout = server.call("POST", "/rollouts", {"model": "digits", "bundle": bundles["1.0.0"][1]})["id"]
    device.install(device.order())
    until(lambda: server.call("GET", f"/rollouts/{rollout}")["state"] == "COMPLETED", "the rollout")
    device.send_batch(device.rows("result", [{"bundle": bundles["1.0.0"][1], "rows": [["a", 1, 0.5]]}]))
    made = create(server.data, tmp_path / "fleet.strop", now=5.0)
    assert stat.S_IMODE((tmp_path / "fleet.strop").stat().st_mode) == 0o600
    assert made.left_out == ()
    device.close()
    server.stop()
    told = {path: server_told(server.data) for path in ["before"]}["before"]

    restored = tmp_path / "elsewhere"
    assert restore(tmp_path / "fleet.strop", restored).files == made.files
    assert server_told(restored) == told
    again = FleetProcess(restored, server.keys).start()
    try:
        assert again.call("GET", f"/rollouts/{rollout}")["state"] == "COMPLETED"
        assert again.call("GET", "/audit")["broken_at"] is None
        assert again.call("GET", "/devices/pi")["results"] == 1
        back = SimulatedDevice(again, tmp_path / "pi", "pi").connect()  # with the certificate that it had
        back.report(running=bundles["1.0.0"][1], active=bundles["1.0.0"][1], version="1.0.0")
        newer = again.call("POST", "/rollouts", {"model": "digits", "bundle": bundles["1.1.0"][1]})["id"]
        job = back.order()
        assert job.bundle == bundles["1.1.0"][1]
        back.status(job.job_id, Status.IN_PROGRESS, Phase.DOWNLOADING, 2)
        until(lambda: again.call("GET", f"/rollouts/{newer}")["executions"][0]["phase"] == "downloading", "its word")
        back.close()
    finally:
        again.close()


def server_told(data):
    """What a database says about models and audit."""
    from fleet.adapters import tables
    from fleet.adapters.stores import open_store

    store = open_store(data)
    try:
        return store.read(lambda db: (len(tables.all_audit(db)), [m.bundle for m in tables.models(db)]))
    finally:
        store.close()


def test_what_can_be_made_again_stays_out(taken):
    names = {name.split("/")[0] for name in unpacked(taken)}
    assert names == {"fleet.db", "ca", "tuf", "job", "operator.token", "backup.json"}


def test_a_backup_is_never_written_over_nor_into_what_is_in_use(taken, tmp_path):
    with pytest.raises(UsageError, match="is there already"):
        create(taken.parent / "data", taken, now=5.0)
    with pytest.raises(UsageError, match="no fleet server's data folder"):
        create(tmp_path, tmp_path / "x", now=5.0)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(UsageError, match="the folder is not empty"):
        restore(taken, tmp_path / "used")
    assert [p.name for p in (tmp_path / "used").iterdir()] == ["file"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_backup_that_was_cut_off_leaves_nothing(taken, tmp_path, share):
    data = taken.read_bytes()
    (tmp_path / "short").write_bytes(data[: int(share * len(data))])
    with pytest.raises(StoreError, match=r"not a whole backup|ends before backup.json"):
        restore(tmp_path / "short", tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["short"]


def test_a_changed_file_is_named(taken, tmp_path):
    members = unpacked(taken)
    members["job/job.key"] = bytes(len(members["job/job.key"]))
    with pytest.raises(StoreError, match=r"'job/job.key' is damaged or missing"):
        restore(packed(tmp_path / "x", members), tmp_path / "new")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "ca/../../evil", "broker/mosquitto.conf"])
def test_a_path_that_leads_elsewhere_is_refused(taken, tmp_path, name):
    with pytest.raises(StoreError, match="which no backup has"):
        restore(packed(tmp_path / "x", {name: b"x", **unpacked(taken)}), tmp_path / "new")
    assert not (tmp_path / "evil").exists()


def test_links_unnamed_files_and_newer_backups_are_refused(taken, tmp_path):
    members = unpacked(taken)
    with pytest.raises(StoreError, match="which its index does not name"):
        restore(packed(tmp_path / "a", {"ca/extra": b"x", **members}), tmp_path / "new")
    index = json.loads(members["backup.json"])
    for change, words in (({"format": 9}, "format 9 is not ours"), ({"schema": 10**6}, "which is newer")):
        changed = {**members, "backup.json": json.dumps({**index, **change}).encode()}
        with pytest.raises(StoreError, match=words):
            restore(packed(tmp_path / "b", changed), tmp_path / "new")
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        link = tarfile.TarInfo("ca/ca.crt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    (tmp_path / "c").write_bytes(zstandard.compress(raw.getvalue()))
    with pytest.raises(StoreError, match="which no backup has"):
        restore(tmp_path / "c", tmp_path / "new")


def test_a_backup_of_sqlite_needs_no_database(taken, tmp_path):
    with pytest.raises(UsageError, match="the backup is of SQLite"):
        restore(taken, tmp_path / "new", database="postgresql://localhost/x")
