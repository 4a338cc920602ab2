# SPDX-License-Identifier: Apache-2.0
"""Job documents: signed online, bound to device, rollout and end."""

import json
import stat
import time
from dataclasses import replace

import pytest

from edge_agent.adapters.jobs import verify
from edge_contract.errors import ContractError, EnrolmentError, MessageError, SignatureError, StoreError
from edge_contract.jobs import Signed
from fleet.adapters.job_signing import JobSigner


def check(data, envelope, *, device="pi-01", now=None):
    return verify(envelope.to_bytes(), data, device, time.time() if now is None else now)


def test_the_helper_process_returns_the_very_job_that_was_signed(shared_fleet, shared_device, helper):
    job = shared_fleet.job("pi-01")
    assert helper(shared_device).verify_job(shared_fleet.jobs.sign(job).to_bytes(), "pi-01") == job


def test_fields_of_a_newer_server_survive(shared_fleet, shared_device):
    job = replace(shared_fleet.job("pi-01"), unrecognized={"colour": "red"})
    assert check(shared_device, shared_fleet.jobs.sign(job)).unrecognized == {"colour": "red"}


def test_a_job_for_another_device_is_refused(shared_fleet, shared_device):
    with pytest.raises(SignatureError, match="job 01J: is for device 'pi-02', this is 'pi-01'"):
        check(shared_device, shared_fleet.jobs.sign(shared_fleet.job("pi-02")))


def test_an_expired_job_is_refused(shared_fleet, shared_device):
    job = shared_fleet.job("pi-01", expires_at=time.time() - 1)
    with pytest.raises(SignatureError, match="job 01J: expired on"):
        check(shared_device, shared_fleet.jobs.sign(job))


def test_an_order_to_do_nothing_never_expires(shared_fleet, shared_device):
    job = shared_fleet.job("pi-01", kind="none", expires_at=0.0)
    assert check(shared_device, shared_fleet.jobs.sign(job)).kind == "none"


def test_a_clock_in_1970_makes_no_expired_job_valid(shared_fleet, shared_device):
    job = shared_fleet.job("pi-01", expires_at=time.time() - 1)
    with pytest.raises(SignatureError, match="job 01J: expired on"):  # by the time that the server tells
        check(shared_device, shared_fleet.jobs.sign(job), now=0.0)


def tampered(envelope, **changes):
    payload = json.loads(envelope.payload)
    return replace(envelope, payload=json.dumps({**payload, **changes}, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    "changes",
    [{"device": "pi-01"}, {"rollout": "r2"}, {"bundle": "c" * 64}, {"expires_at": 4e9}, {"extra": 1}],
    ids=str,
)
def test_a_changed_job_is_refused_whatever_was_changed(shared_fleet, shared_device, changes):
    envelope = shared_fleet.jobs.sign(shared_fleet.job("pi-02" if "device" in changes else "pi-01"))
    with pytest.raises(SignatureError, match="the signature does not fit the document"):
        check(shared_device, tampered(envelope, **changes))


def test_a_job_of_another_server_is_refused(shared_fleet, shared_device, tmp_path):
    stranger = JobSigner.create(tmp_path / "stranger")
    with pytest.raises(SignatureError, match=f"signed by unknown key {stranger.keyid[:16]}"):
        check(shared_device, stranger.sign(shared_fleet.job("pi-01")))


def test_a_stranger_who_names_our_key_is_refused(shared_fleet, shared_device, tmp_path):
    envelope = JobSigner.create(tmp_path / "stranger").sign(shared_fleet.job("pi-01"))
    with pytest.raises(SignatureError, match="does not fit"):
        check(shared_device, replace(envelope, keyid=shared_fleet.jobs.keyid))


@pytest.mark.parametrize("signature", ["", "zz", "00" * 64, "0" * 127])
def test_a_malformed_signature_is_refused(shared_fleet, shared_device, signature):
    with pytest.raises(SignatureError, match="does not fit"):
        check(shared_device, replace(shared_fleet.jobs.sign(shared_fleet.job("pi-01")), signature=signature))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"v":1,"payload":1,"keyid":"a","signature":"b"}'])
def test_what_is_no_envelope_is_a_message_error(shared_device, data):
    with pytest.raises(MessageError):
        verify(data, shared_device, "pi-01", time.time())


def test_a_signed_payload_that_is_no_job_is_a_contract_error(shared_fleet, shared_device):
    class Note:
        def to_bytes(self):
            return b'{"v":1}'

    with pytest.raises(ContractError):
        check(shared_device, shared_fleet.jobs.sign(Note()))


def test_two_keys_overlap_while_the_server_changes_its_job_key(shared_fleet, tmp_path):
    successor = JobSigner.create(tmp_path / "next")
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity" / "job.pub").write_text(f"{shared_fleet.jobs.public_key} {successor.public_key}\n")
    for signer in (shared_fleet.jobs, successor):
        assert check(tmp_path, signer.sign(shared_fleet.job("pi-01"))).rollout == "r1"


def test_a_device_without_job_key_is_told_to_enrol(shared_fleet, tmp_path):
    with pytest.raises(EnrolmentError, match="strop agent enrol"):
        check(tmp_path, shared_fleet.jobs.sign(shared_fleet.job("pi-01")))


def test_a_job_key_is_private_and_made_once(tmp_path):
    first = JobSigner.create(tmp_path)
    assert stat.S_IMODE((tmp_path / "job.key").stat().st_mode) == 0o600
    with pytest.raises(StoreError, match="already"):
        JobSigner.create(tmp_path)
    assert JobSigner(tmp_path).keyid == first.keyid


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_a_damaged_job_key_is_one_clear_line(tmp_path, content):
    (tmp_path / "job.key").write_bytes(content)
    with pytest.raises(StoreError, match="job key cannot be read"):
        JobSigner(tmp_path)


def test_the_envelope_survives_the_wire(shared_fleet):
    envelope = shared_fleet.jobs.sign(shared_fleet.job("pi-01"))
    assert Signed.from_bytes(envelope.to_bytes()) == envelope
