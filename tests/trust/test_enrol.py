# SPDX-License-Identifier: Apache-2.0
"""Enrolment over real TLS: what it leaves on the device, and each refusal in its own clear line."""

import json
import stat
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edge_agent.adapters import time_floor
from edge_agent.adapters.enrol import enrol
from edge_contract.errors import DownloadError, EnrolmentError, UsageError
from fleet.adapters import ca


def test_the_helper_process_enrols_a_device_and_its_key_is_readable_by_nobody_else(fleet, tmp_path, helper):
    data = tmp_path / "pi-02"
    endpoints = helper(data).enrol(fleet.enrol_url, fleet.new_token(), "pi-02")
    identity = data / "identity"
    names = {
        "device.key",
        "device.crt",
        "ca.crt",
        "job.pub",
        "root.json",
        "endpoints.json",
        "facts.json",
        "binding.json",
    }
    assert {path.name for path in identity.iterdir()} == names
    assert stat.S_IMODE((identity / "device.key").stat().st_mode) == 0o600
    assert json.loads((identity / "endpoints.json").read_text()) == endpoints
    assert endpoints["broker"] == {"host": "127.0.0.1", "port": 8883}
    key = load_pem_private_key((identity / "device.key").read_bytes(), None)
    certificate = x509.load_pem_x509_certificate((identity / "device.crt").read_bytes())
    assert certificate.public_key() == key.public_key()
    assert ca.facts((identity / "device.crt").read_bytes()).name == "pi-02"
    assert not (data / "identity.new").exists()


def test_the_server_never_sees_a_private_key_nor_stores_a_secret(fleet, tmp_path):
    token = fleet.new_token()
    enrol(tmp_path / "pi", fleet.enrol_url, token, "pi-01")
    secret = token.split(".")[2]
    stored = json.dumps([record.to_json() for record in fleet.tokens.values()])
    assert secret not in stored


def used(fleet, folder):
    token = fleet.new_token()
    enrol(folder / "first", fleet.enrol_url, token, "pi-01")
    return token


REFUSALS = {
    "used before": (used, "already used by device 'pi-01'"),
    "expired": (lambda fleet, _: fleet.new_token(ttl_s=60, now=time.time() - 61), "expired; ask the operator"),
    "unknown": (lambda fleet, _: fleet.new_token().replace("strop1.", "strop1.ff", 1), "unknown token"),
    "wrong secret": (lambda fleet, _: _other_secret(fleet.new_token()), "unknown token"),
    "another server's": (lambda fleet, _: fleet.new_token()[:-64] + "0" * 64, "the token names 0000000000000000"),
    "cut short": (lambda fleet, _: fleet.new_token()[:-3], "not an enrolment token; copy the whole line"),
}


def _other_secret(token):
    prefix, name, secret, digest = token.split(".")
    return ".".join([prefix, name, secret[::-1], digest])


@pytest.mark.parametrize("case", REFUSALS)
def test_a_token_is_refused_in_one_clear_line_and_leaves_no_identity(shared_fleet, tmp_path, case):
    make, said = REFUSALS[case]
    token = make(shared_fleet, tmp_path)
    with pytest.raises(EnrolmentError, match=said) as caught:
        enrol(tmp_path / "pi", shared_fleet.enrol_url, token, "pi-02")
    assert "\n" not in str(caught.value)
    assert token.split(".")[2] not in str(caught.value)
    assert not (tmp_path / "pi" / "identity").exists()


@pytest.mark.parametrize("name", ["strop-server", "a/b", "", "+", "x" * 64])
def test_a_name_that_no_device_may_have_is_refused_before_anything_is_sent(shared_fleet, tmp_path, name):
    shared_fleet.requests.clear()
    with pytest.raises(EnrolmentError, match="name"):
        enrol(tmp_path / "pi", shared_fleet.enrol_url, shared_fleet.new_token(), name)
    assert shared_fleet.requests == []


def test_a_server_with_another_ca_gets_no_token(fleet, new_fleet, tmp_path):
    foreign = new_fleet("foreign")
    with pytest.raises(EnrolmentError, match="somebody stands in between"):
        enrol(tmp_path / "pi", foreign.enrol_url, fleet.new_token(), "pi-01")
    assert foreign.requests == ["/ca.pem"]


def test_a_server_that_shows_our_ca_but_has_no_certificate_of_it_gets_no_token(fleet, new_fleet, tmp_path):
    foreign = new_fleet("foreign")
    foreign.overrides["/ca.pem"] = ca.ca_pem(fleet.data / "ca")
    posted = []
    foreign.enrol = posted.append
    with pytest.raises(DownloadError, match="not from our fleet's CA"):
        enrol(tmp_path / "pi", foreign.enrol_url, fleet.new_token(), "pi-01")
    assert posted == []


SPOILED = {
    "a certificate of nobody": ({"certificate": "x"}, "not from the CA that the token names"),
    "no root": ({"tuf_root": ""}, "no valid root.json; install one: strop fleet trust"),
    "a root that nobody signed": ({"tuf_root": "{}"}, "no valid root.json"),
    "a job key that is none": ({"job_public_key": "abc"}, "job.pub"),
    "no job key": ({"job_public_key": ""}, "job.pub: no key"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_an_answer_that_does_not_fit_is_refused_and_the_same_token_works_once_it_does(shared_fleet, tmp_path, case):
    fields, said = SPOILED[case]
    data, token = tmp_path / "pi", shared_fleet.new_token()
    shared_fleet.spoil = fields
    with pytest.raises(EnrolmentError, match=said):
        enrol(data, shared_fleet.enrol_url, token, "pi-01")
    assert not (data / "identity").exists()
    shared_fleet.spoil = {}
    enrol(data, shared_fleet.enrol_url, token, "pi-01")  # the server spent the token, but on this very key
    assert (data / "identity" / "device.crt").exists()


def test_a_certificate_for_another_device_or_key_is_refused(fleet, tmp_path, make_csr):
    now, folder = time.time(), fleet.data / "ca"
    for name in ("pi-02", "pi-01"):
        fleet.spoil = {"certificate": ca.sign_csr(folder, make_csr(name), name, now=now).decode()}
        with pytest.raises(EnrolmentError, match=f"is for \\['{name}'\\], not for the key of 'pi-01'"):
            enrol(tmp_path / "pi", fleet.enrol_url, fleet.new_token(), "pi-01")


def test_a_certificate_for_our_key_from_another_ca_is_refused(fleet, tmp_path, make_csr):
    fleet.spoil = {"tuf_root": ""}  # the first try leaves a key behind
    with pytest.raises(EnrolmentError):
        enrol(tmp_path / "pi", fleet.enrol_url, fleet.new_token(), "pi-01")
    key = load_pem_private_key((tmp_path / "pi" / "identity.new" / "device.key").read_bytes(), None)
    ca.create_ca(tmp_path / "ca", now=time.time())
    foreign = ca.sign_csr(tmp_path / "ca", make_csr("pi-01", key), "pi-01", now=time.time())
    fleet.spoil = {"certificate": foreign.decode()}
    with pytest.raises(EnrolmentError, match="not from the CA that the token names"):
        enrol(tmp_path / "pi", fleet.enrol_url, fleet.new_token(), "pi-01")


def test_enrolling_twice_needs_replace_and_keeps_the_old_identity_aside(fleet, device):
    before = (device / "identity" / "device.crt").read_bytes()
    with pytest.raises(EnrolmentError, match="enrolled already; pass --replace"):
        enrol(device, fleet.enrol_url, fleet.new_token(), "pi-01")
    for _ in range(2):
        enrol(device, fleet.enrol_url, fleet.new_token(), "pi-01", replace=True)
    after = (device / "identity" / "device.crt").read_bytes()
    assert after != before
    assert (device / "identity.old" / "device.crt").read_bytes() != before  # the one before the last


def test_moving_to_another_fleet_forgets_the_metadata_of_the_old_one(fleet, device, new_fleet):
    (device / "tuf" / "time_floor.json").write_text('{"newest_signed":4000000000}')
    enrol(device, fleet.enrol_url, fleet.new_token(), "pi-01", replace=True)
    assert time_floor.newest_signed(device / "tuf") == 4e9  # the same fleet: rollback protection stays
    other = new_fleet("other")
    enrol(device, other.enrol_url, other.new_token(), "pi-01", replace=True)
    assert [path.name for path in (device / "tuf").iterdir()] == ["time_floor.json"]
    assert abs(time_floor.newest_signed(device / "tuf") - time.time()) < 2 * 86_400  # the new certificate's begin


def test_a_key_left_by_a_power_cut_is_used_again(fleet, tmp_path):
    data = tmp_path / "pi"
    fleet.spoil = {"tuf_root": ""}
    with pytest.raises(EnrolmentError):
        enrol(data, fleet.enrol_url, fleet.new_token(), "pi-01")
    left = (data / "identity.new" / "device.key").read_bytes()
    fleet.spoil = {}
    enrol(data, fleet.enrol_url, fleet.new_token(), "pi-01")
    assert (data / "identity" / "device.key").read_bytes() == left


def test_a_key_cut_short_is_made_anew(fleet, tmp_path):
    folder = tmp_path / "pi" / "identity.new"
    folder.mkdir(parents=True)
    (folder / "device.key").write_bytes(b"-----BEGIN")
    enrol(tmp_path / "pi", fleet.enrol_url, fleet.new_token(), "pi-01")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:1", "https://", "https://host:port"])
def test_an_address_that_is_not_https_is_wrong_usage(shared_fleet, tmp_path, url):
    with pytest.raises(UsageError, match="write https://HOST:PORT"):
        enrol(tmp_path / "pi", url, shared_fleet.new_token(), "pi-01")


def test_an_address_that_is_not_the_enrolment_listener_says_so(fleet, tmp_path):
    fleet.overrides["/ca.pem"] = b"<html>"
    with pytest.raises(EnrolmentError, match="give the enrolment address of the fleet server"):
        enrol(tmp_path / "pi", fleet.enrol_url, fleet.new_token(), "pi-01")


def test_no_server_is_a_download_error(fleet, tmp_path):
    token = fleet.new_token()
    fleet.close()
    with pytest.raises(DownloadError, match="no way to the server"):
        enrol(tmp_path / "pi", fleet.enrol_url, token, "pi-01")
