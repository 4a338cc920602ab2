# SPDX-License-Identifier: Apache-2.0
"""Quarantine, release, decommission and what proves it; clones; tokens in batches; on every database."""

import pytest

from edge_contract.batches import TelemetryAck
from edge_contract.errors import EnrolmentError, UsageError
from edge_contract.messages import Death, DesiredState
from fleet.adapters import device_states, erasure, quarantine, tables, telemetry
from fleet.core.audit import first_broken
from fleet.core.enrolment import MAX_BATCH, TokenRecord, Wishes, name_in_batch


def test_what_a_quarantined_device_sends_is_acknowledged_and_kept_apart(bureau):
    standings = bureau.operations.standings
    bureau.enrolled("pi", "good")
    bureau.batch("pi", "metric", [{"p95_us": 1}])
    standings.quarantine("pi", "looks odd", "op")
    assert bureau.read(device_states.blocked) == {"pi"}
    bureau.batch("pi", "metric", [{"p95_us": 2}, {"p95_us": 3}], after=1)
    bureau.batch("pi", "metric", [{"p95_us": 3}, {"p95_us": 4}], after=2)  # again, and one more
    bureau.batch("pi", "metric", [{"p95_us": 9}], after=8)  # a gap before it: the device says so itself
    bureau.batch("good", "metric", [{"p95_us": 7}])
    acks = [TelemetryAck.from_bytes(payload) for name, payload in bureau.acks if "/pi/" in name]
    assert [ack.up_to_seq for ack in acks] == [1, 3, 4, 9]
    assert bureau.read(lambda db: telemetry.count_rows(db, "pi")) == {"metric": 1}
    assert bureau.read(lambda db: telemetry.count_rows(db, "good")) == {"metric": 1}
    assert bureau.read(lambda db: standings.shown(db, "pi"))["standing"]["rows_apart"] == {"metric": 4}
    assert standings.release("pi", "op", accept=True)["accepted_rows"] == 4
    assert bureau.read(lambda db: telemetry.count_rows(db, "pi")) == {"metric": 5}
    assert bureau.read(lambda db: quarantine.counts(db, "pi")) == {}
    bureau.batch("pi", "metric", [{"p95_us": 10}], after=9)
    assert bureau.read(lambda db: telemetry.count_rows(db, "pi")) == {"metric": 6}
    assert bureau.read(device_states.blocked) == frozenset()


def test_a_device_is_told_of_its_quarantine_by_its_desired_state(desk):
    desk.enrolled("pi")
    desk.operations.devices.set_config("pi", {"heartbeat_s": 5}, "op")
    desk.operations.standings.quarantine("pi", "looks odd", "op")
    told = DesiredState.from_bytes(desk.messages("twin/desired", "pi")[-1])
    assert told.unrecognized["quarantine"] == {"reason": "looks odd", "since": desk.now.hex()}
    assert (told.version, told.config) == (2, {"heartbeat_s": 5})
    assert desk.operations.standings.quarantine("pi", "again", "op").reason == "looks odd"
    assert len(desk.audited("device.quarantine")) == 1
    desk.operations.devices.set_config("pi", {"heartbeat_s": 6}, "op")
    assert "quarantine" in DesiredState.from_bytes(desk.messages("twin/desired", "pi")[-1]).unrecognized
    desk.operations.standings.release("pi", "op")
    told = DesiredState.from_bytes(desk.messages("twin/desired", "pi")[-1])
    assert (told.version, told.unrecognized, told.config) == (4, {}, {"heartbeat_s": 6})
    with pytest.raises(UsageError, match="not in quarantine"):
        desk.operations.standings.release("pi", "op")
    with pytest.raises(UsageError, match="not enrolled"):
        desk.operations.standings.quarantine("nobody", "", "op")


def test_two_machines_on_one_identity_are_noticed_and_held_if_wished(desk):
    desk.enrolled("pi", "other")
    for boot in ("a", "b", "a", "b"):
        desk.birth("other", boot)
    assert desk.read(device_states.blocked) == frozenset()
    shown = desk.read(lambda db: desk.operations.identities.shown(db, "other", desk.now))["clone"]
    assert shown["suspected"]
    assert "device revoke" in shown["todo"]
    desk.operations.standings.quarantine_clones = True
    for boot in ("a", "b", "a", "b"):
        desk.birth("pi", boot)
    held = desk.read(device_states.all_standings)
    assert (held["pi"].state, held["pi"].actor) == ("quarantined", "server")
    assert held["pi"].reason == "clone suspected: two machines speak: starts a and b take turns"
    assert desk.operations.standings.sweep() == 1  # what was noticed before, or by a worker
    assert set(desk.read(device_states.blocked)) == {"pi", "other"}
    desk.operations.standings.release("pi", "op")
    assert desk.operations.standings.sweep() == 0
    assert [subject for subject, _ in desk.audited("device.clone_cleared")] == ["pi"]
    desk.operations.standings.quarantine("pi", "for another reason", "op")
    desk.operations.standings.release("pi", "op")
    assert len(desk.audited("device.clone_cleared")) == 1


def test_decommission_is_proved_by_counts_and_a_digest(bureau):
    bureau.trust()
    bureau.enrol("pi", bureau.operations.devices.new_token(60.0, "op"))
    bureau.enrolled("stays")
    bureau.birth("pi")
    bureau.batch("pi", "metric", [{"p95_us": 1}, {"p95_us": 2}])
    bureau.batch("stays", "metric", [{"p95_us": 1}])
    bureau.operations.groups.label(["pi"], {"site": "a"}, [], "op")
    bureau.operations.commands.ask("pi", "ping", None, "op")
    cut = []
    bureau.operations.identities.on_revoked = cut.append
    proof = bureau.operations.standings.decommission("pi", "op", delete=True)
    assert proof["rows"] == {"telemetry": 2, "marks": 1, "commands": 1}
    assert len(proof["sha256"]) == 64
    ((subject, detail),) = bureau.audited("device.decommission")
    assert (subject, detail["rows"], detail["sha256"]) == ("pi", proof["rows"], proof["sha256"])
    assert cut == ["pi"]
    for table in (*erasure.ERASED, *erasure.RECORD):
        count = bureau.read(lambda db, t=table: db.execute(f"SELECT COUNT(*) FROM {t} WHERE device = 'pi'").fetchone())
        assert tuple(count) == (0,), table
    assert bureau.read(lambda db: telemetry.count_rows(db, "stays")) == {"metric": 1}
    cleared = {m.topic.rpartition("/pi/")[2] for m in bureau.sent if not m.payload and m.retain}
    assert {"twin/desired", "twin/reported", "state/birth", "state/death", "job/next"} <= cleared
    assert bureau.read(device_states.blocked) == {"pi"}
    # What the broker brings back of our own clearing is no dead letter; its last will is.
    for channel in ("twin/reported", "state/birth", "state/death"):
        bureau.hear("pi", channel, b"")
    assert bureau.dead_letters() == []
    bureau.hear("pi", "state/death", Death("pi", "b1", 1).to_bytes())
    assert "not enrolled" in bureau.dead_letters()[0]
    # A new token enrols the name anew; nothing of before is left.
    bureau.enrol("pi", bureau.operations.devices.new_token(60.0, "op"))
    assert bureau.read(device_states.blocked) == frozenset()
    assert first_broken(reversed(bureau.read(tables.all_audit))) is None


def test_data_of_a_device_that_was_removed_before_can_still_be_deleted(desk):
    desk.trust()
    desk.enrol("pi", desk.operations.devices.new_token(60.0, "op"))
    desk.batch("pi", "metric", [{"p95_us": 1}])
    desk.operations.devices.remove("pi", "op")
    assert desk.operations.standings.decommission("pi", "op", delete=True)["rows"] == {"telemetry": 1, "marks": 1}
    for stranger in ("nobody", "../x", "a' OR '1'='1"):
        with pytest.raises(UsageError):
            desk.operations.standings.decommission(stranger, "op", delete=True)


def test_the_digest_tells_what_was_deleted(desk):
    desk.enrolled("a", "b", "c")
    digests = []
    for name, value in (("a", 1), ("b", 1), ("c", 2)):
        desk.batch(name, "metric", [{"p95_us": value}])
        desk.store.write(lambda db, n=name: db.execute("UPDATE telemetry SET device='x', id=1 WHERE device=?", (n,)))
        desk.store.write(lambda db, n=name: db.execute("UPDATE marks SET device='x' WHERE device=?", (n,)))
        digests.append(desk.store.write(lambda db: erasure.erase(db, "x"))["sha256"])
    assert digests[0] == digests[1] != digests[2]


def test_no_table_of_devices_is_forgotten(desk):
    tables_of = "SELECT m.name AS name FROM sqlite_master m, pragma_table_info(m.name) c WHERE c.name = 'device'"
    found = {row["name"] for row in desk.read(lambda db: db.execute(tables_of).fetchall())}
    decided = {*erasure.ERASED, *erasure.RECORD, *erasure.KEPT}
    assert found == decided, "decide in fleet/adapters/erasure.py what becomes of a table when its device leaves"


def test_samples_of_captures_go_with_the_device(desk):
    desk.trust()
    desk.enrol("pi", desk.operations.devices.new_token(60.0, "op"))
    where = desk.folder / "captures" / "c1" / "pi"
    where.mkdir(parents=True)
    (where / "1.sealed").write_bytes(b"x")
    assert desk.operations.standings.decommission("pi", "op", delete=True)["files"] == 1
    assert not where.exists()


# Tokens.


def test_a_batch_gives_its_devices_names_and_labels(bureau):
    bureau.trust()
    devices = bureau.operations.devices
    wishes = Wishes("truck-7", "cam-{n:3}", {"site": "a", "lab": ""})
    made = devices.new_tokens(3, 600.0, wishes, "op")
    assert len({text for text, _ in made}) == 3
    assert [record.wishes.name for _, record in made] == ["cam-001", "cam-002", "cam-003"]
    with pytest.raises(EnrolmentError, match="enrols 'cam-001' only, not 'cam-002'"):
        bureau.enrol("cam-002", made[0][0])
    bureau.enrol("cam-001", made[0][0])
    assert bureau.read(lambda db: tables.device(db, "cam-001")) is not None
    assert bureau.operations.groups.label(["cam-001"], {}, [], "op") == 1
    with pytest.raises(EnrolmentError, match="already used"):
        bureau.enrol("cam-001", made[0][0])
    assert devices.revoke_tokens("truck-7", "op") == 2
    with pytest.raises(EnrolmentError, match="was taken back"):
        bureau.enrol("cam-002", made[1][0])
    states = {record.id: record for record in devices.tokens("truck-7")}
    assert sum(bool(record.used_at) for record in states.values()) == 1
    assert devices.revoke_tokens("truck-7", "op") == 0
    with pytest.raises(UsageError, match="no token and no batch"):
        devices.revoke_tokens("truck-8", "op")
    with pytest.raises(UsageError, match="no token and no batch"):
        devices.revoke_tokens("", "op")
    (entry, *_) = bureau.audited("token.new")
    assert entry[1]["count"] == 3
    assert not any(text.split(".")[2] in str(entry) for text, _ in made)


def test_a_token_of_a_glob_and_the_settings_of_groups_at_enrolment(desk):
    desk.trust()
    desk.operations.groups.new("a", "site:a", [], 0, "op")
    desk.operations.groups.set_config("a", {"heartbeat_s": 60}, "op")
    ((token, _),) = desk.operations.devices.new_tokens(1, 600.0, Wishes(name="cam-*", labels={"site": "a"}), "op")
    with pytest.raises(EnrolmentError, match=r"enrols 'cam-\*' only"):
        desk.enrol("gate-1", token)
    desk.enrol("cam-1", token)
    assert desk.desired("cam-1").config == {"heartbeat_s": 60}


def test_tokens_are_bounded_and_old_ones_are_read():
    assert name_in_batch("{n}-{n:2}", 5) == "5-05"
    old = {"id": "1", "secret_sha256": "a" * 64, "created_at": 1.0, "expires_at": 2.0}
    assert TokenRecord.from_json(old).wishes == Wishes()
    again = TokenRecord.from_json(TokenRecord.from_json(old).to_json())
    assert again == TokenRecord.from_json(old)


def test_too_many_tokens_at_once_are_refused(desk):
    for count in (0, MAX_BATCH + 1):
        with pytest.raises(UsageError, match="at most"):
            desk.operations.devices.new_tokens(count, 600.0, Wishes(), "op")
    for wishes, ttl_s in ((Wishes("a b"), 60.0), (Wishes(name="x" * 101), 60.0), (Wishes(), 1e12)):
        with pytest.raises(UsageError, match="tokens"):
            desk.operations.devices.new_tokens(1, ttl_s, wishes, "op")
    with pytest.raises(UsageError, match="not the name of a label"):
        desk.operations.devices.new_tokens(1, 600.0, Wishes(labels={"a b": ""}), "op")
