# SPDX-License-Identifier: Apache-2.0
"""Protocol N and N−1: what earlier versions said is read today, and what is said today has all that they need."""

from pathlib import Path
from typing import Any

import pytest

from edge_contract import batches, canonical, jobs, messages
from edge_contract.errors import MessageError
from edge_contract.jobs import JobStatus
from edge_contract.messages import DesiredState, ReportedState
from edge_contract.states import Phase, Status
from fleet.adapters import tables
from fleet.adapters.blobs import BlobStore
from fleet.adapters.ingest import Ingest
from fleet.adapters.judging import WindowJudge
from fleet.adapters.sqlite import SqliteStore
from fleet.core.execution import Execution
from fleet.core.inventory import DeviceRecord
from tests.support import recording
from tests.support.device_sim import NEW, OLD, Device

RECORDED = Path(__file__).parents[1] / "vectors" / "recorded"
VERSIONS = sorted(path.name for path in RECORDED.iterdir())
FREE = ("health", "details", "ignored", "dropped", "config", "rows", "board")
"""Objects whose words come and go."""


def bytes_of(version: str, folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((RECORDED / version / folder).iterdir())}


@pytest.fixture(params=["as today", "as the version before"])
def protocol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Today's protocol, and the next one, for which today's recordings are N−1."""
    number = messages.PROTOCOL_VERSION + (request.param != "as today")
    for module in (messages, jobs, batches):
        monkeypatch.setattr(module, "PROTOCOL_VERSION", number)
    return number


def channel_of(name: str) -> str:
    kind = name.partition(".")[0]
    if kind in ("birth", "death"):
        return f"state/{kind}"
    if kind.startswith("reported"):
        return "twin/reported"
    return f"tm/{kind.removeprefix('batch-')}" if kind.startswith("batch") else "job/j1/status"


class Office:
    """A server's ingest over a real database that knows device ``pi`` and its order ``j1``."""

    def __init__(self, folder: Path) -> None:
        self.store, self.acks = SqliteStore(folder / "fleet.db"), list[bytes]()
        self.ingest = Ingest(
            self.store,
            WindowJudge(BlobStore(folder / "blobs")),
            clock=lambda: 5000.0,
            publish=lambda _topic, payload: self.acks.append(payload),
            wake=lambda: None,
        )
        record = DeviceRecord("pi", 1.0, desired=DesiredState(0, {}, {}))
        order = Execution("j1", "r1", 1, 0, "pi", "digits", NEW, Status.QUEUED, Phase.QUEUED, 9e9, issued_at=1.0)
        self.store.write(lambda db: (tables.put_device(db, record), tables.put_executions(db, [order])))

    def hear(self, name: str, payload: bytes) -> None:
        future = self.ingest.handle(f"strop/v1/default/pi/{channel_of(name)}", payload)
        assert future is not None
        future.result()

    def read(self, query: str) -> Any:
        return self.store.read(lambda db: db.execute(query).fetchall())


@pytest.mark.parametrize("version", VERSIONS)
def test_the_server_understands_every_recorded_word_of_a_device(version: str, protocol: int, tmp_path: Path) -> None:
    del protocol
    office, said = Office(tmp_path), bytes_of(version, "up")
    ordered = sorted(said, key=lambda name: (name.startswith("job"), seq_of(name, said[name])))
    for name in ordered:
        office.hear(name, said[name])
    assert [tuple(row) for row in office.read("SELECT topic, reason FROM dead_letters")] == []
    record = office.store.read(lambda db: tables.device(db, "pi"))
    assert record is not None
    assert record.boot == "boot1"
    assert record.running["digits"] in (OLD, NEW)
    (execution,) = office.store.read(lambda db: [tables.execution(db, "j1")])
    assert execution is not None
    assert execution.phase in (Phase.DONE, Phase.ROLLED_BACK)
    assert office.read("SELECT count(*) FROM telemetry")[0][0] > 5
    assert len(office.acks) == sum(name.startswith("batch") for name in said)
    office.store.close()


def seq_of(name: str, payload: bytes) -> int:
    return JobStatus.from_bytes(payload).seq if name.startswith("job") else 0


@pytest.mark.parametrize("version", VERSIONS)
def test_a_device_obeys_every_recorded_word_of_a_server(version: str, protocol: int) -> None:
    del protocol
    said, device = bytes_of(version, "down"), Device()
    device.run(2)
    for name in ("desired", "nothing", "ack", "order"):
        channel = {"desired": "twin/desired", "ack": "tm/ack"}.get(name, "job/next")
        device.say(channel, said[f"{name}.json"])
        device.run(3)
    assert device.state.twin.version == 4
    device.say("job/next", said["cancel.json"])
    device.run(30)
    assert device.status() == "SUCCEEDED", "the cancel came too late"
    assert "bad_message" not in [body["kind"] for body in device.server.bodies("event")]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recorded_journal_of_every_phase_is_taken_up_again(version: str) -> None:
    """A journal is read by the next version of the agent, after its own update."""
    journals = bytes_of(version, "journal")
    assert {"idle", "finished", "accepted", "health_check"} <= {name.partition(".")[0] for name in journals}
    for name, journal in journals.items():
        device = Device()
        device.disk.complete |= {NEW}
        phase = name.partition(".")[0]
        if phase in ("health_check", "committing", "rolling_back"):
            device.disk.pointers.update(active=NEW, standby=OLD)
        device.disk.journal = journal
        device.power_cycle()
        device.run(60)
        alarms = [body["kind"] for body in device.server.bodies("alarm")]
        assert "journal_unreadable" not in alarms, name
        assert device.state.first.update.execution is None, name
        assert device.state.twin.version == (0 if phase == "idle" else 4), name
        expected = "" if phase == "idle" else "FAILED" if phase == "rolling_back" else "SUCCEEDED"
        assert device.status() == expected, name


def test_a_version_that_is_neither_ours_nor_the_one_before_is_refused(protocol: int) -> None:
    document = canonical.loads(bytes_of(VERSIONS[-1], "up")["reported-idle.json"])
    for number in (protocol + 1, protocol - 2):
        with pytest.raises(MessageError):
            ReportedState.from_bytes(canonical.dumps({**document, "v": number}))


def needs(old: Any, new: Any, path: str) -> list[str]:
    """Return what a reader of the old document would miss in the new one."""
    if isinstance(old, dict) and isinstance(new, dict):
        lost = [f"{path}.{key}" for key in old if key not in new]
        inner = [key for key in old if key in new and key not in FREE]
        return lost + [line for key in inner for line in needs(old[key], new[key], f"{path}.{key}")]
    return [] if isinstance(new, type(old)) else [f"{path}: {type(old).__name__} became {type(new).__name__}"]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_said_today_has_every_field_that_an_earlier_reader_needs(version: str) -> None:
    today = recording.record()
    for folder in ("up", "down", "journal"):
        for name, old in bytes_of(version, folder).items():
            assert name in today[folder], f"{folder}/{name} is no longer said"
            if name.endswith(".json"):
                lost = needs(canonical.loads(old), canonical.loads(today[folder][name]), name)
            else:
                documents = [batches.decode_batch(data).to_json() for data in (old, today[folder][name])]
                lost = needs(*documents, name)
            assert lost == [], f"{folder}/{name}"
