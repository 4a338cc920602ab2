# SPDX-License-Identifier: Apache-2.0
"""Captures for a key that the server never has, devices asked to send now, and how a device tells its consent."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge_agent.capture.sealing import seal
from edge_agent.core import agent
from edge_agent.core.events import Instant
from edge_agent.core.lane import Identity
from edge_agent.core.reports import reported
from edge_contract.capture import CaptureOrder, join_content
from edge_contract.errors import MessageError, SignatureError, UsageError
from edge_contract.jobs import Signed
from edge_contract.messages import CAPTURES, DesiredState, ReportedState
from fleet.adapters import tables
from fleet.adapters.unsealing import load_key, new_key, unseal, write_npz
from fleet.core.inventory import DeviceRecord
from tests.fleet.test_access import FILE_TOKEN, House


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("captures"))
    record = DeviceRecord("pi", 1.0, desired=DesiredState(0, {}, {}))
    made.office.store.write(lambda db: tables.put_device(db, record))
    yield made
    made.close()


@pytest.fixture
def captures(house):
    return house.operations.captures


def request(**more):
    return {"devices": ["pi"], "policy": {"random": 1.0}, "hours": 1.0, **more}


def test_samples_are_sealed_to_a_key_that_the_server_never_has(captures, tmp_path):
    public = new_key(tmp_path / "mine.key")
    assert (tmp_path / "mine.key").stat().st_mode & 0o777 == 0o600
    campaign = captures.start(request(public_key=public), "op")
    assert campaign.public_key == public
    assert not captures.key_path(campaign.id).exists()
    (envelope,) = captures.orders("pi")
    order = CaptureOrder.from_bytes(Signed.from_bytes(envelope).payload)
    array = np.zeros(3).tobytes()
    sealed = seal(join_content({"why": "random"}, array), order, 1)
    captures.take(campaign.id, "pi", 1, sealed)
    held = captures.sealed(campaign.id, "pi", 1)
    facts, opened = unseal(held, load_key(tmp_path / "mine.key"))
    assert (opened, facts["device"]) == (array, "pi")
    with pytest.raises(SignatureError):
        unseal(held, X25519PrivateKey.generate())
    assert write_npz(tmp_path / "out.npz", [(facts, opened)]) == 1
    proof = captures.delete(campaign.id, "op")
    assert (proof["samples"], proof["public_key"]) == (1, public)
    with pytest.raises(UsageError, match="there is a file already"):
        new_key(tmp_path / "mine.key")


def test_without_one_the_server_makes_a_key_as_ever(captures):
    campaign = captures.start(request(), "op")
    assert load_key(captures.key_path(campaign.id)).public_key().public_bytes_raw().hex() == campaign.public_key
    captures.delete(campaign.id, "op")
    assert not captures.key_path(campaign.id).exists()


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [
        ("00" * 32, UsageError, "not fit for sealing"),  # everybody could open what is sealed to it
        ("01" + "00" * 31, UsageError, "not fit for sealing"),
        ("ab" * 31, MessageError, "not a SHA-256"),
        (7, MessageError, "expected text"),
    ],
)
def test_a_public_key_that_protects_nothing_is_refused(captures, key, error, words):
    with pytest.raises(error, match=words):
        captures.start(request(public_key=key), "op")
    assert captures.shown() == []


def test_devices_of_a_live_campaign_are_asked_to_send_now(house, captures):
    told = []
    captures.on_changed = lambda devices, name: told.append((devices, name))
    campaign = captures.start(request(), "op")
    path = f"/api/v1/captures/{campaign.id}/collect"
    assert house.ask("POST", path).status_code == 401
    assert house.ask("POST", path, token=FILE_TOKEN).json()["id"] == campaign.id
    assert told == [(("pi",), campaign.id)] * 2
    captures.stop(campaign.id, "op")
    with pytest.raises(UsageError, match="it has ended"):
        captures.collect(campaign.id)
    captures.delete(campaign.id, "op")
    with pytest.raises(UsageError, match="is not known"):
        captures.collect(campaign.id)


@pytest.mark.parametrize("allows", [True, False])
def test_a_device_tells_whether_its_owner_allows_captures(allows):
    me = Identity("pi", "b", "litert", "0", allows_captures=allows)
    said = ReportedState.from_bytes(reported(agent.initial(me), Instant(1.0, 1.0)).payload)
    assert (CAPTURES in said.features) is allows
    record = DeviceRecord("pi", 1.0, reported=said)
    assert record.allows_captures is allows
    assert not DeviceRecord("new", 1.0).allows_captures
