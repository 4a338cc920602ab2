# SPDX-License-Identifier: Apache-2.0
"""Renewal over the wire: at half of the life, after the end, through power cuts, against revocation and copies."""

import shutil
import stat
import time
from pathlib import Path

import pytest
from cryptography import x509

from edge_agent import folder
from edge_agent.adapters import identity, renewal, tls
from edge_agent.adapters.caretaker import Caretaker
from edge_agent.adapters.enrol import enrol
from edge_agent.core.renewal import renew_at
from edge_contract.enrolment import EnrolmentRequest
from edge_contract.errors import DownloadError, EnrolmentError, MessageError, UsageError
from edge_contract.renewal import BoardIdentity, RenewalRequest
from fleet.adapters import ca

DAY = 86_400.0


@pytest.fixture
def aged(fleet, tmp_path):
    """A function that enrols ``pi-01`` so many days ago and returns its data folder."""

    def make(days: float) -> Path:
        data = tmp_path / "pi-01"
        token = fleet.new_token(ttl_s=9e9, now=time.time() - days * DAY - 1)
        fleet.clock = lambda: time.time() - days * DAY
        enrol(data, fleet.enrol_url, token, "pi-01")
        fleet.clock = time.time
        return data

    return make


def care(data, now=None, **words):
    return renewal.care(data, "pi-01", time.time() if now is None else now, **words)


def certificate(data):
    return x509.load_pem_x509_certificate((data / "identity" / "device.crt").read_bytes())


def asks(fleet, data):
    """What the server answers the device under the pair in force."""
    connection = tls.connect(fleet.device_url, tls.device_context(data / "identity"))
    try:
        return tls.exchange(connection, "GET", "/identity")[0]
    finally:
        connection.close()


def test_before_half_of_its_life_a_certificate_stays(fleet, aged):
    data = aged(150)
    before = certificate(data)
    fleet.requests.clear()
    assert care(data)["renewed"] is False
    assert certificate(data) == before
    assert fleet.requests == []


def test_after_half_of_its_life_the_helper_process_renews_with_a_new_key(fleet, aged, helper):
    data = aged(205)
    before, old_key = certificate(data), (data / "identity" / "device.key").read_bytes()
    done = helper(data).care("pi-01")
    after = certificate(data)
    assert done["renewed"] is True
    assert after.public_key() != before.public_key()
    assert done["not_after"] == after.not_valid_after_utc.timestamp() > time.time() + 360 * DAY
    assert identity.life(data).serial == done["serial"]
    assert asks(fleet, data) == 200
    key = data / "identity" / "device.key"
    assert key.read_bytes() != old_key
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert {p.name for p in (data / "identity" / "keys").iterdir()} == {
        format(c.serial_number, "x") for c in (before, after)
    }
    assert fleet.shown("pi-01")["certificate"]["serial"] == done["serial"]


def test_a_second_renewal_drops_the_pair_before_the_last(fleet, aged):
    data = aged(205)
    serials = [format(certificate(data).serial_number, "x")]
    serials += [care(data, force=True)["serial"] for _ in range(3)]
    assert sorted(p.name for p in (data / "identity" / "keys").iterdir()) == sorted(serials[-2:])
    assert (data / "identity" / "current").readlink() == Path("keys", serials[-1])


@pytest.mark.parametrize(("days", "is_granted"), [(400, True), (365 + 179, True), (365 + 181, False)])
def test_an_expired_certificate_renews_for_half_a_year(fleet, aged, days, is_granted):
    data = aged(days)
    if is_granted:
        assert care(data)["renewed"] is True
        assert asks(fleet, data) == 200
    else:
        with pytest.raises(EnrolmentError, match="expired too long ago to renew"):
            care(data)


def test_without_a_server_the_present_pair_stays_and_the_key_in_the_making_is_used_again(fleet, aged):
    data = aged(205)
    before = certificate(data)
    fleet.close()
    for _ in range(2):
        with pytest.raises(DownloadError, match="no way to the server"):
            care(data)
    assert certificate(data) == before
    assert [p.name for p in (data / "identity" / "keys").iterdir()] == ["next"]


def test_a_pair_that_the_server_refuses_is_put_away_and_the_present_one_stays(fleet, aged, monkeypatch):
    data = aged(205)
    before = certificate(data)

    def refuse(*_):
        raise EnrolmentError("the server refuses this device's certificate")

    monkeypatch.setattr(renewal.tls, "exchange", refuse_on_identity(renewal.tls.exchange, refuse))
    with pytest.raises(EnrolmentError, match="refuses"):
        care(data)
    monkeypatch.undo()
    assert certificate(data) == before
    assert asks(fleet, data) == 200
    assert not list((data / "identity" / "keys").iterdir())


def refuse_on_identity(real, refuse):
    return lambda connection, method, path, *rest, **words: (
        refuse() if path == "/identity" else real(connection, method, path, *rest, **words)
    )


STEPS = ("write", "rename", "sync_folder", "symlink_to", "replace", "exchange")


class Cut(BaseException):
    """The power goes away."""


def test_a_power_cut_at_any_write_leaves_a_pair_that_works_and_the_next_run_ends_the_renewal(
    fleet, aged, monkeypatch, tmp_path
):
    data = aged(205)
    shutil.copytree(data, tmp_path / "fresh", symlinks=True)
    cuts = 0
    for at in range(1, 60, 3):  # each third write of them all, so that every kind is met
        shutil.rmtree(data)
        shutil.copytree(tmp_path / "fresh", data, symlinks=True)
        fleet.store.write(lambda db: db.execute("DELETE FROM certificates"))
        left = [at]

        def counted(real, left=left):
            def run(*args, **words):
                left[0] -= 1
                if left[0] == 0:
                    raise Cut
                return real(*args, **words)

            return run

        with monkeypatch.context() as patch:
            for name in ("write", "sync_folder"):
                patch.setattr(renewal.durable, name, counted(getattr(renewal.durable, name)))
            for name in ("symlink_to", "replace", "rename"):
                patch.setattr(Path, name, counted(getattr(Path, name)))
            patch.setattr(renewal.tls, "exchange", counted(tls.exchange))
            try:
                care(data)
                is_whole = left[0] > 0
            except Cut:
                is_whole = False
        if is_whole:
            break
        cuts += 1
        tls.device_context(data / "identity")  # what the link does at the next start
        assert care(data)["not_after"] > time.time() + 360 * DAY
        assert asks(fleet, data) == 200
    assert is_whole
    assert cuts > 4


# What the server refuses.


def test_a_revoked_device_is_refused_and_needs_a_token(fleet, aged):
    data = aged(205)
    assert fleet.identities.revoke("pi-01", "stolen", "operator") == 1
    with pytest.raises(EnrolmentError, match=r"was revoked: stolen; enrol the device again"):
        care(data)
    assert fleet.shown("pi-01")["certificate"]["revoked"] is True
    with pytest.raises(UsageError, match="no certificate to revoke"):
        fleet.identities.revoke("pi-01", "again", "operator")
    enrol(data, fleet.enrol_url, fleet.new_token(), "pi-01", replace=True)
    assert care(data, force=True)["renewed"] is True


def test_of_two_copies_of_a_card_the_second_to_renew_is_refused_and_noticed(fleet, aged, tmp_path):
    data = aged(205)
    copy = tmp_path / "copy"
    shutil.copytree(data, copy, symlinks=True)
    care(data)
    with pytest.raises(EnrolmentError, match="superseded"):
        care(copy)
    clone = fleet.shown("pi-01")["clone"]
    assert clone["suspected"] is True
    assert clone["evidence"] == ["a superseded key asked for renewal: a copy of the identity exists"]
    care(data, force=True)  # the genuine one goes on
    fleet.identities.forgive("pi-01", "operator")
    assert fleet.shown("pi-01")["clone"]["suspected"] is False


def test_after_a_new_enrolment_a_stolen_copy_of_the_old_identity_renews_no_more(fleet, aged, tmp_path):
    data = aged(205)
    stolen = tmp_path / "stolen"
    shutil.copytree(data, stolen, symlinks=True)
    enrol(data, fleet.enrol_url, fleet.new_token(), "pi-01", replace=True)
    with pytest.raises(EnrolmentError, match="superseded"):
        care(stolen)
    assert care(data, force=True)["renewed"] is True
    one = fleet.shown("pi-01")
    assert fleet.store.read(lambda db: fleet.identities.all_shown(db, time.time()))["pi-01"]["clone"] == one["clone"]


def test_a_board_that_is_another_one_gets_no_renewal(fleet, aged):
    data = aged(205)
    fleet.store.write(
        lambda db: fleet.identities.issued(
            db, (data / "identity" / "device.crt").read_bytes(), time.time(), BoardIdentity("soc-a", "m")
        )
    )
    (data / "identity" / "binding.json").write_text('{"soc":"soc-b","machine":"m"}')
    with pytest.raises(EnrolmentError, match="another board uses this identity"):
        care(data)


def test_a_removed_device_gets_no_renewal(fleet, aged):
    data = aged(205)
    fleet.store.write(lambda db: db.execute("DELETE FROM devices"))
    with pytest.raises(EnrolmentError, match="is not enrolled"):
        care(data)


def test_a_proof_by_another_key_is_refused(fleet, aged, make_csr):
    data = aged(205)
    pem = (data / "identity" / "device.crt").read_text()
    for proof in ("", "00", "zz", "30" * 40):
        with pytest.raises(EnrolmentError, match="proof is not signed"):
            fleet.identities.renew(RenewalRequest(pem, make_csr("pi-01").decode(), proof, BoardIdentity()))
    with pytest.raises(EnrolmentError, match="not a certificate"):
        fleet.identities.renew(RenewalRequest("rubbish", make_csr("pi-01").decode(), "00", BoardIdentity()))


def test_a_certificate_of_another_fleet_is_refused(fleet, aged, new_fleet):
    data = aged(205)
    foreign = new_fleet("foreign")
    endpoints = (data / "identity" / "endpoints.json").read_text()
    (data / "identity" / "endpoints.json").write_text(endpoints.replace(fleet.enrol_url, foreign.enrol_url))
    with pytest.raises(DownloadError, match="not from our fleet's CA"):
        care(data)
    request = (data / "identity" / "device.crt").read_text()
    with pytest.raises(EnrolmentError, match="issued by another CA"):
        key = renewal.keys.load(data / "identity" / "device.key")
        csr = renewal.keys.request(key, "pi-01")
        signature = key.sign(renewal.proof_bytes(csr), renewal.ec.ECDSA(renewal.hashes.SHA256())).hex()
        foreign.identities.renew(RenewalRequest(request, csr, signature, BoardIdentity()))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"certificate":1}', b'{"certificate":"c","csr":"c","proof":"p","board":1}']
)
def test_a_malformed_renewal_is_a_message_error(data):
    with pytest.raises(MessageError):
        RenewalRequest.from_bytes(data)


def test_an_enrolment_of_an_older_agent_tells_no_board(make_csr):
    document = b'{"csr":"c","device":"pi","token":"t"}'
    assert EnrolmentRequest.from_bytes(document).board == BoardIdentity()


# Revocation lists.


def test_a_revocation_list_is_signed_by_the_ca_and_each_is_later_than_the_one_before(fleet):
    authority = x509.load_pem_x509_certificate(ca.ca_pem(fleet.data / "ca"))
    dates = []
    for serials in ([], ["0a"], ["0a", "ff"]):
        path = ca.write_revocations(fleet.data / "ca", [(s, time.time()) for s in serials], now=time.time())
        found = x509.load_pem_x509_crl(path.read_bytes())
        assert found.is_signature_valid(authority.public_key())
        assert [one.serial_number for one in found] == [int(s, 16) for s in serials]
        assert found.next_update_utc == authority.not_valid_after_utc
        dates.append(found.last_update_utc)
    assert dates == sorted(set(dates))


# The caretaker.


class Asked:
    """A helper that is a list of what it was asked: the real one is another process."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0

    def care(self, _device):
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_the_caretaker_starts_the_helper_for_a_reason_only(fleet, aged):
    data, said = aged(150), []
    asked = Asked({"renewed": True, "not_after": 1.9e9}, DownloadError("no way"), DownloadError("no way"))
    caretaker = Caretaker(data, "pi-01", asked, lambda *line: said.append(line), lambda: 0.5)
    assert caretaker.look(time.time()) == 2700.0
    assert asked.asked == 0
    due = time.time() + 60 * DAY
    assert renew_at(*life_of(data), "pi-01") < due
    caretaker.look(due)
    assert said == [("info", "the certificate was renewed until 2030-03-17")]
    assert [caretaker.look(due), caretaker.look(due)] == [30.0, 60.0]  # it backs off, and says so once
    assert len(said) == 2
    (data / "identity" / "facts.json").unlink()
    assert caretaker.is_due(time.time())


def life_of(data):
    life = identity.life(data)
    return life.not_before, life.not_after


def test_the_caretaker_of_a_board_without_an_identity_rests(tmp_path):
    caretaker = Caretaker(tmp_path, "pi-01", Asked(), lambda *_: None)
    assert caretaker.is_due(0.0) is False
    caretaker.start()
    caretaker.stop()


def test_a_clock_that_is_not_set_is_a_reason(fleet, aged):
    assert Caretaker(aged(1), "pi-01", Asked(), lambda *_: None).is_due(12.0)


def test_status_tells_the_end_of_the_certificate(fleet, aged):
    data = aged(100)
    (data / "agent.toml").write_text('device = "pi-01"\n')
    shown = folder.status(data)["certificate"]
    assert shown["serial"] == format(certificate(data).serial_number, "x")
    assert 264 < shown["days_left"] < 266
    assert shown["renewal_in_days"] < shown["days_left"] - 150
