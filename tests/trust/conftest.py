# SPDX-License-Identifier: Apache-2.0
"""A whole small fleet on loopback: CA, TUF repository and job key served over real TLS, keys on a workstation."""

import json
import secrets
import shutil
import ssl
import tempfile
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from edge_agent.adapters.enrol import enrol
from edge_agent.adapters.trust import TrustHelper
from edge_contract import canonical
from edge_contract.enrolment import EnrolmentAnswer, EnrolmentRequest, parse_token
from edge_contract.errors import StropError
from edge_contract.jobs import JobDocument, Probation
from edge_contract.manifest import Artefact, BundleFile, Manifest, TensorSpec
from edge_contract.preprocess import Preprocess
from edge_contract.renewal import RenewalRequest
from export.keys import signing
from fleet.adapters import ca, tables
from fleet.adapters.captures import Captures
from fleet.adapters.identities import Identities
from fleet.adapters.job_signing import JobSigner
from fleet.adapters.sqlite import SqliteStore
from fleet.adapters.tuf_repo import TufRepository
from fleet.core import enrolment
from fleet.core.inventory import DeviceRecord


def make_bundle(folder: Path, version: str, weights: bytes) -> str:
    """Write a small bundle with a real manifest and return its id."""
    contents = {"model.onnx": weights, "golden.json": b"{}", "labels.txt": b"zero\none\n"}
    folder.mkdir(parents=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    spec = TensorSpec("input", "input", (1, 1, 28, 28), "uint8", "NCHW", 0.5, 128)
    logits = TensorSpec("logits", "logits", (1, 2), "uint8", "NC", 0.5, 128)
    artefact = Artefact("model.onnx", "onnx", ("onnxruntime",), "generic-x86", "int8", "", spec, (logits,))
    files = tuple(BundleFile(n, len(d), canonical.digest(d)) for n, d in sorted(contents.items()))
    preprocess = Preprocess.from_json({"resize": [28, 28], "scale": 0.25}, "test")
    manifest = Manifest(
        "digits",
        version,
        "classification",
        preprocess,
        "softmax",
        ("zero", "one"),
        (artefact,),
        "golden.json",
        {},
        {},
        files,
    )
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return manifest.bundle_id


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # one write for head and body: two would wait for each other's acknowledgement
    fleet: "Fleet"

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.fleet.requests.append(self.path)
        body = self.fleet.known(self.connection, self.path) or self.fleet.get(self.path)
        self._reply(404 if body is None else 200, body or b"not here")

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            self._reply(200, canonical.dumps(self.fleet.post(self.path, data).to_json()))
        except StropError as error:
            self._reply(403, json.dumps({"detail": str(error)}).encode())

    def do_PUT(self) -> None:
        data, (_, _, campaign, number) = self.rfile.read(int(self.headers["Content-Length"])), self.path.split("/")
        seen = self.fleet.identities.seen(self.connection.getpeercert(binary_form=True))
        taken = self.fleet.captures.take(campaign, seen.device, int(number), data)
        receipt = self.fleet.overrides.get(self.path) or json.dumps({"sha256": taken}).encode()
        self._reply(200 if isinstance(taken, str) else taken.status, receipt)


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, *_: object) -> None:
        """A peer that hangs up is part of the tests."""


class Fleet:
    """The server's side, as small as it can be, made of the real parts."""

    def __init__(self, data: Path, keys: Path) -> None:
        self.data, self.keys, self.requests = data, keys, []
        ca.create_ca(data / "ca", now=time.time())
        self.repository = TufRepository.create(data / "tuf")
        self.jobs = JobSigner.create(data / "job")
        signing.create_keys(keys, self.repository.online_public)
        self.repository.install_root((keys / "root.json").read_bytes(), now=time.time())
        self.clock = time.time
        self.store = SqliteStore(data / "fleet.db")
        self.identities = Identities(self.store, data / "ca", lambda: self.clock(), self.jobs.public_key)
        self.captures = Captures(
            self.store, data / "captures", self.jobs, clock=lambda: self.clock(), random_bytes=secrets.token_bytes
        )
        self.tokens: dict[str, enrolment.TokenRecord] = {}
        self.overrides: dict[str, bytes] = {}
        self.spoil: dict[str, str] = {}  # fields of the enrolment answer to falsify
        self.device_url = self._listen(mutual=True)
        self.enrol_url = self._listen(mutual=False)

    def _listen(self, *, mutual: bool) -> str:
        certificate, key = ca.issue_server(self.data / "ca", now=time.time())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key)
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.data / "ca" / "ca.crt")
        server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"fleet": self}))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        self._servers = [*getattr(self, "_servers", []), (server, thread)]
        return f"https://127.0.0.1:{server.server_port}"

    def close(self) -> None:
        for server, thread in self._servers:
            server.shutdown()
            thread.join()
            server.server_close()
        self.store.close()

    def known(self, connection: ssl.SSLSocket, path: str) -> bytes | None:
        """What a device asks about itself."""
        if path not in ("/identity", "/captures") or path in self.overrides:
            return None
        seen = self.identities.seen(connection.getpeercert(binary_form=True))
        if path == "/captures":
            return canonical.dumps({"orders": [one.decode() for one in self.captures.orders(seen.device)]})
        return canonical.dumps({"device": seen.device, "serial": seen.serial})

    def post(self, path: str, data: bytes):
        if path == "/renew":
            return self.identities.renew(RenewalRequest.from_bytes(data))
        return self.enrol(data)

    def shown(self, device: str) -> dict:
        return self.store.read(lambda db: self.identities.shown(db, device, self.clock()))

    def get(self, path: str) -> bytes | None:
        if path in self.overrides:
            return self.overrides[path]
        if path == "/ca.pem":
            return ca.ca_pem(self.data / "ca")
        return self.repository.file(path.removeprefix("/tuf/")) if path.startswith("/tuf/") else None

    def new_token(self, *, ttl_s: float = 3600.0, now: float | None = None) -> str:
        when = time.time() if now is None else now
        random_bytes = secrets.token_bytes(enrolment.RANDOM_BYTES)
        token, record = enrolment.new_token(random_bytes, ca.ca_digest(self.data / "ca"), when, ttl_s)
        self.tokens[record.id] = record
        return str(token)

    def enrol(self, data: bytes) -> EnrolmentAnswer:
        request, now = EnrolmentRequest.from_bytes(data), self.clock()
        token, csr = parse_token(request.token), request.csr.encode()
        key_digest, record = ca.csr_key_digest(csr), self.tokens.get(token.id)
        enrolment.check_token(record, token.secret, now, key_digest=key_digest)
        assert record is not None
        certificate = ca.sign_csr(self.data / "ca", csr, request.device, now=now)
        self.tokens[token.id] = enrolment.use_token(record, request.device, key_digest, now)
        self.store.write(lambda db: tables.put_device(db, DeviceRecord(request.device, now)))
        self.store.write(lambda db: self.identities.issued(db, certificate, now, request.board))
        answer = EnrolmentAnswer(
            certificate.decode(),
            ca.ca_pem(self.data / "ca").decode(),
            self.jobs.public_key,
            self.repository.root_bytes.decode(),
            "default",
            {"host": "127.0.0.1", "port": 8883},
            self.device_url,
        )
        return replace(answer, **self.spoil)

    def publish(self, bundle: Path, *, now: float | None = None) -> None:
        when = time.time() if now is None else now
        self.repository.publish_targets(signing.sign_bundle(self.keys, bundle), now=when)

    def job(self, device: str, **changes: object) -> JobDocument:
        now = time.time()
        fields = {
            "job_id": "01J", "device": device, "rollout": "r1", "kind": "install", "model": "digits", "version": "1",
            "bundle": "b" * 64, "issued_at": now, "expires_at": now + 3600, "timeout_s": 600.0,
            "probation": Probation(),
        }  # fmt: skip
        return JobDocument(**{**fields, **changes})  # type: ignore[arg-type]


_MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path(tmp_path):
    """A folder in memory where there is room: these tests write small files durably, and wait for nothing else."""
    try:
        has_room = shutil.disk_usage(_MEMORY).free > 1_000_000_000
        folder = Path(tempfile.mkdtemp(prefix="strop-trust-", dir=_MEMORY)) if has_room else tmp_path
    except OSError:
        folder = tmp_path
    yield folder
    if folder != tmp_path:
        shutil.rmtree(folder)


@pytest.fixture
def fleet(tmp_path):
    made = Fleet(tmp_path / "server", tmp_path / "keys")
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_fleet(tmp_path_factory):
    """One fleet for tests that change nothing in it."""
    made = Fleet(tmp_path_factory.mktemp("server"), tmp_path_factory.mktemp("keys"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_device(shared_fleet, tmp_path_factory):
    """The data folder of an enrolled ``pi-01``, for tests that change nothing in it."""
    data = tmp_path_factory.mktemp("pi-01")
    enrol(data, shared_fleet.enrol_url, shared_fleet.new_token(), "pi-01")
    return data


@pytest.fixture
def device(fleet, tmp_path):
    """The data folder of an enrolled device, ``pi-01``."""
    data = tmp_path / "pi-01"
    enrol(data, fleet.enrol_url, fleet.new_token(), "pi-01")
    return data


@pytest.fixture
def bundle(tmp_path):
    """A bundle's folder and id, version 1."""
    return tmp_path / "bundle-1", make_bundle(tmp_path / "bundle-1", "1.0.0", b"weights 1")


@pytest.fixture
def new_bundle(tmp_path):
    """A function that makes a further bundle: (version, weights) → (folder, id)."""

    def make(version: str, weights: bytes):
        folder = tmp_path / f"bundle-{version}"
        return folder, make_bundle(folder, version, weights)

    return make


@pytest.fixture
def helper():
    """A function that starts the real helper process for a device's data folder."""
    return lambda data: TrustHelper(data, timeout_s=60.0)


@pytest.fixture
def new_fleet(tmp_path):
    """A function that starts another fleet, foreign to the first."""
    made = []

    def make(name: str) -> Fleet:
        made.append(Fleet(tmp_path / name / "server", tmp_path / name / "keys"))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


@pytest.fixture
def make_csr():
    """A function that makes a certificate request in PEM: (name, key or None for a fresh one)."""

    def make(name: str, key=None) -> bytes:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        return builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM)

    return make
