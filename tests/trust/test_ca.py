# SPDX-License-Identifier: Apache-2.0
"""Certificates: what they say, for what they serve, and that OpenSSL agrees."""

import contextlib
import datetime as dt
import ipaddress
import ssl
import stat
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.adapters.tls import verified_context
from edge_contract.errors import EnrolmentError, StoreError
from fleet.adapters import ca

DAY = 86_400.0
NOW = time.time()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca"
    ca.create_ca(path, now=NOW)
    return path


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> None:
    """Run one TLS handshake in memory; raises what either side refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    sides[0].write(b"x")
    assert sides[1].read(1) == b"x"  # with TLS 1.3 a server speaks of the client's certificate only now


def server_context(certificate, key, *, client_ca=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


def written(tmp_path, certificate, key):
    (tmp_path / "x.crt").write_bytes(certificate)
    (tmp_path / "x.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return tmp_path / "x.crt", tmp_path / "x.key"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "fleet.example", "192.0.2.7"])
def test_openssl_believes_the_server_at_each_of_its_names(folder, tmp_path, host):
    name = host if host not in ("localhost", "127.0.0.1", "::1") else ""
    pair = ca.issue_server(folder, name, now=NOW)
    shake_hands(server_context(*pair), verified_context(ca.ca_pem(folder).decode()), host)


def test_openssl_does_not_believe_the_server_under_another_name(folder):
    pair = ca.issue_server(folder, now=NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(server_context(*pair), verified_context(ca.ca_pem(folder).decode()), "other.example")


def test_the_server_pair_is_kept_while_it_serves_and_made_anew_when_it_does_not(tmp_path):
    ca.create_ca(tmp_path, now=NOW)
    paths = ca.issue_server(tmp_path, now=NOW)
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in ca.issue_server(tmp_path, now=NOW + 600 * DAY)] == first
    assert [path.read_bytes() for path in ca.issue_server(tmp_path, "0.0.0.0", now=NOW)] == first
    assert ca.issue_server(tmp_path, "fleet.example", now=NOW)[0].read_bytes() != first[0]
    second = paths[0].read_bytes()
    assert ca.issue_server(tmp_path, "fleet.example", now=NOW + 710 * DAY)[0].read_bytes() != second
    paths[1].write_bytes(b"torn")
    ca.issue_server(tmp_path, "fleet.example", now=NOW)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*paths)


def test_a_device_certificate_serves_as_client_only(folder, tmp_path, make_csr):
    key = ec.generate_private_key(ec.SECP256R1())
    pair = written(tmp_path, ca.sign_csr(folder, make_csr("pi-01", key), "pi-01", now=NOW), key)
    client = verified_context(ca.ca_pem(folder).decode())
    client.load_cert_chain(*pair)
    genuine = server_context(*ca.issue_server(folder, now=NOW), client_ca=folder / "ca.crt")
    shake_hands(genuine, client, "localhost")
    client.check_hostname = False  # so that only the purpose is left to object to
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        shake_hands(server_context(*pair), client, "localhost")


def test_the_servers_own_client_pair_is_its_name_and_private(folder):
    certificate, key = ca.issue_client(folder, now=NOW)
    assert ca.facts(certificate.read_bytes()).name == "strop-server"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_certificate_lasts_a_year_and_begins_a_day_early_for_slow_clocks(folder, make_csr):
    facts = ca.facts(ca.sign_csr(folder, make_csr("pi-01"), "pi-01", now=NOW))
    assert facts.name == "pi-01"
    assert facts.not_before == int(NOW) - DAY
    assert facts.not_after == int(NOW) + 365 * DAY


def test_nothing_but_key_and_name_of_a_request_is_copied(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pi-01")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    signed = ca.sign_csr(folder, greedy.public_bytes(Encoding.PEM), "pi-01", now=NOW)
    certificate = x509.load_pem_x509_certificate(signed)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_a_request_for_another_name_is_refused(folder, make_csr):
    with pytest.raises(EnrolmentError, match="names 'pi-02', but device 'pi-01' asks"):
        ca.sign_csr(folder, make_csr("pi-02"), "pi-01", now=NOW)


@pytest.mark.parametrize("name", ["strop-server", "a/b", "a b", "+", "#", ""])
def test_no_device_gets_the_servers_name_or_one_that_breaks_topics(folder, name, make_csr):
    with pytest.raises(EnrolmentError, match="name"):
        ca.sign_csr(folder, make_csr(name or "x"), name, now=NOW)


def _weak(key):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pi-01")])
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, algorithm).public_bytes(Encoding.PEM)


def test_a_key_of_another_kind_is_refused(folder):
    for key in (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())):
        with pytest.raises(EnrolmentError, match="not ECDSA P-256"):
            ca.sign_csr(folder, _weak(key), "pi-01", now=NOW)


def test_a_request_that_its_key_did_not_sign_is_refused(folder, make_csr):
    der = bytearray(x509.load_pem_x509_csr(make_csr("pi-01")).public_bytes(Encoding.DER))
    der[-1] ^= 1
    with pytest.raises(EnrolmentError, match=r"signature does not fit|not a request"):
        ca.sign_csr(folder, ssl_pem(bytes(der)), "pi-01", now=NOW)


def ssl_pem(der):
    return ssl.DER_cert_to_PEM_cert(der).replace("CERTIFICATE", "CERTIFICATE REQUEST").encode()


@given(st.binary(max_size=400) | st.binary(max_size=300).map(ssl_pem))
@settings(max_examples=80, deadline=None)
def test_any_bytes_are_a_request_or_an_enrolment_error(data):
    with pytest.raises(EnrolmentError):
        ca.csr_key_digest(data)


def test_a_huge_request_is_not_even_parsed():
    with pytest.raises(EnrolmentError, match="more than 16384"):
        ca.csr_key_digest(b"x" * 20_000)


def test_renewal_serves_the_holder_of_a_certificate_until_half_a_year_after_its_end(folder, tmp_path, make_csr):
    present = ca.sign_csr(folder, make_csr("pi-01"), "pi-01", now=NOW)
    later = NOW + (365 + 179) * DAY
    assert ca.facts(ca.renew(folder, present, make_csr("pi-01"), now=later)).not_after > later
    with pytest.raises(EnrolmentError, match="expired too long ago to renew; enrol the device again"):
        ca.renew(folder, present, make_csr("pi-01"), now=later + 2 * DAY)
    with pytest.raises(EnrolmentError, match="names 'pi-02'"):
        ca.renew(folder, present, make_csr("pi-02"), now=NOW)
    ca.create_ca(tmp_path / "other", now=NOW)
    foreign = ca.sign_csr(tmp_path / "other", make_csr("pi-01"), "pi-01", now=NOW)
    with pytest.raises(EnrolmentError, match="issued by another CA"):
        ca.renew(folder, foreign, make_csr("pi-01"), now=NOW)


def test_renewal_cannot_turn_the_servers_own_certificate_into_a_device(folder, make_csr):
    present = ca.issue_client(folder, now=NOW)[0].read_bytes()
    with pytest.raises(EnrolmentError, match="the server's own"):
        ca.renew(folder, present, make_csr("strop-server"), now=NOW)


def test_a_ca_is_made_once_and_its_key_is_private(folder):
    before = (folder / "ca.key").read_bytes()
    with pytest.raises(StoreError, match="a CA is here already"):
        ca.create_ca(folder, now=NOW)
    assert (folder / "ca.key").read_bytes() == before
    assert stat.S_IMODE((folder / "ca.key").stat().st_mode) == 0o600


def test_a_missing_damaged_or_mixed_ca_is_one_clear_line(folder, tmp_path):
    with pytest.raises(StoreError, match="the CA cannot be read"):
        ca.ca_digest(tmp_path)
    ca.create_ca(tmp_path, now=NOW)
    (tmp_path / "ca.key").write_bytes((folder / "ca.key").read_bytes())
    with pytest.raises(StoreError, match="not a pair"):
        ca.issue_client(tmp_path, now=NOW)


def test_two_certificates_never_share_a_serial_number(folder, make_csr):
    csr = make_csr("pi-01")
    serials = {ca.facts(ca.sign_csr(folder, csr, "pi-01", now=NOW)).serial for _ in range(20)}
    assert len(serials) == 20


def test_the_ca_outlives_what_it_signs(folder):
    certificate = x509.load_pem_x509_certificate(ca.ca_pem(folder))
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc > dt.timedelta(days=19 * 365)
