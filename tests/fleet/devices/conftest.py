# SPDX-License-Identifier: Apache-2.0
"""The verbs on devices over a real database and a real CA, without a network: a set clock, messages that are kept."""

import secrets
import shutil
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent.adapters import keys
from edge_contract.batches import TelemetryBatch, TelemetryRow, encode_batch
from edge_contract.enrolment import EnrolmentRequest
from edge_contract.messages import Birth, DesiredState, ModelState, ReportedState
from export.keys import signing
from fleet.adapters import credentials, stores, tables
from fleet.adapters.blobs import BlobStore
from fleet.adapters.desk import Addresses
from fleet.adapters.ingest import Ingest
from fleet.adapters.judging import WindowJudge
from fleet.adapters.operations import Operations
from fleet.core.inventory import DeviceRecord

ROOT = "strop/v1/default"


class Bureau:
    """A server without its listeners."""

    def __init__(self, folder, store):
        self.now, self.sent, self.acks, self.folder, self.store = time.time(), [], [], folder, store
        blobs = BlobStore(folder / "blobs")
        self.operations = Operations(
            store,
            blobs,
            credentials.open_trust(folder),
            addresses=Addresses("default", "localhost", 8883, "https://localhost:8443"),
            clock=lambda: self.now,
            random_bytes=secrets.token_bytes,
            publish=self.sent.append,
        )
        self.ingest = Ingest(
            store,
            WindowJudge(blobs),
            clock=lambda: self.now,
            publish=lambda name, payload: self.acks.append((name, payload)),
            wake=lambda: None,
            identities=self.operations.identities,
            commands=self.operations.commands,
        )

    def trust(self):
        """Install a trust root, without which nobody enrols."""
        signing.create_keys(self.folder / "keys", (self.folder / "tuf" / "online.pub").read_bytes())
        self.operations.models.install_root((self.folder / "keys" / "root.json").read_bytes(), "op")

    def enrolled(self, *names):
        """Put devices into the database as an enrolment would."""

        def job(db):
            for name in names:
                tables.put_device(db, DeviceRecord(name, self.now, desired=DesiredState(0, {}, {})))

        self.store.write(job)

    def enrol(self, name, token):
        """Enrol a device with a real key and request."""
        request = keys.request(ec.generate_private_key(ec.SECP256R1()), name)
        return self.operations.devices.enrol(EnrolmentRequest(token, name, request))

    def hear(self, device, channel, payload, **more):
        """Take in a message; raises what the ingest did not store."""
        done = self.ingest.handle(f"{ROOT}/{device}/{channel}", payload, **more)
        if done is not None:
            done.exception()
            self.store.write(lambda db: None)  # what followed the commit is done, too

    def birth(self, device, boot="b1", **board):
        said = Birth(device, boot, 1, "0.1.0", "litert", "2.1.0", {"machine": "x86_64", **board}, self.now)
        self.hear(device, "state/birth", said.to_bytes())

    def report(self, device, *, boot="b1", version=0, config=None, **health):
        slots = {"digits": ModelState("a" * 64, "a" * 64, "", "", "1.0.0")}
        state = (slots, config or {}, {"rows": 0}, health, self.now)
        self.hear(device, "twin/reported", ReportedState(device, boot, version, *state).to_bytes())

    def batch(self, device, cls, bodies, *, after=0, boot="b1"):
        rows = tuple(TelemetryRow(after + 1 + i, self.now, body) for i, body in enumerate(bodies))
        self.hear(device, f"tm/{cls}", encode_batch(TelemetryBatch(device, boot, cls, after, rows)))

    def messages(self, channel, device=""):
        """Payloads that were published on a channel, oldest first."""
        return [m.payload for m in self.sent if m.topic.endswith(f"/{device}/{channel}" if device else f"/{channel}")]

    def desired(self, device):
        return self.read(lambda db: tables.device(db, device)).desired

    def read(self, job):
        return self.store.read(job)

    def audited(self, action):
        """Details of the audit entries of an action, oldest first."""
        found = self.read(lambda db: tables.all_audit(db))
        return [(entry.subject, entry.detail) for entry in reversed(found) if entry.action == action]

    def dead_letters(self):
        return [row["reason"] for row in self.read(lambda db: db.execute("SELECT reason FROM dead_letters").fetchall())]


@pytest.fixture(scope="session")
def made_ready(tmp_path_factory):
    """A data folder with keys and an empty database; to make one takes longer than most tests."""
    folder = tmp_path_factory.mktemp("ready") / "data"
    credentials.init(folder, now=time.time())
    stores.open_store(folder, "").close()
    return folder


@pytest.fixture
def data(tmp_path, made_ready):
    """A copy of it."""
    return shutil.copytree(made_ready, tmp_path / "data")


@pytest.fixture
def bureau(data, open_store):
    """On SQLite and on PostgreSQL."""
    return Bureau(data, open_store(data))


@pytest.fixture
def desk(data):
    """On SQLite alone: for what has no SQL of its own."""
    store = stores.open_store(data, "")
    yield Bureau(data, store)
    store.close()
