# SPDX-License-Identifier: Apache-2.0
"""The real mosquitto with the generated configuration: who may speak where is judged at the receiver.

A refused QoS 1 publish is acknowledged all the same by MQTT 3.1.1, so only what arrives counts.
"""

import contextlib
import queue
import socket
import ssl
import time
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion

from edge_contract.batches import CLASSES
from edge_contract.errors import BrokerError
from edge_contract.topics import DOWN, UP
from fleet.adapters import ca
from fleet.adapters.broker import BrokerFiles, Mosquitto, access_list, find_mosquitto, free_port
from fleet.adapters.link import LinkFiles, ServerLink

pytestmark = pytest.mark.broker
ROOT = "strop/v1/default"


def pair(folder: Path, authority: Path, name: str) -> tuple[Path, Path]:
    """Return certificate and key of a device."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    certificate, key_path = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_bytes(ca.sign_csr(authority, request.public_bytes(Encoding.PEM), name, now=time.time()))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, key_path


class Rig:
    """A broker, the server's link, and devices."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ca, self.clients = folder, folder / "ca", []
        ca.create_ca(self.ca, now=time.time())
        certificate, key = ca.issue_server(self.ca, now=time.time())
        files = BrokerFiles(self.ca / "ca.crt", certificate, key)
        self.broker = Mosquitto(folder / "broker", "default", "127.0.0.1", 0, files=files)
        self.broker.start()
        self.heard = queue.Queue()
        client_certificate, client_key = ca.issue_client(self.ca, now=time.time())
        self.ready = queue.Queue()
        self.link = ServerLink(
            "default",
            LinkFiles(self.ca / "ca.crt", client_certificate, client_key),
            on_message=lambda topic, payload, _retained: self.heard.put((topic, payload)),
            on_ready=lambda: self.ready.put(True),
        )
        self.link.start("127.0.0.1", self.broker.port)

    def device(self, name: str, *, files: tuple[Path, Path] | None = None, suffix: str = "") -> mqtt.Client:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"client-{name}{suffix}", protocol=mqtt.MQTTv311)
        context = ssl.create_default_context(cafile=str(self.ca / "ca.crt"))
        context.load_cert_chain(*(files or pair(self.folder, self.ca, name)))
        client.tls_set_context(context)
        client.heard = queue.Queue()
        granted = queue.Queue()
        client.on_connect = lambda c, *_: c.subscribe([(f"{ROOT}/#", 1)])
        client.on_subscribe = lambda *_: granted.put(True)
        client.on_message = lambda _c, _d, m: client.heard.put((m.topic, m.payload))
        client.connect("127.0.0.1", self.broker.port, keepalive=30)
        client.loop_start()
        self.clients.append(client)
        granted.get(timeout=10)
        return client

    def close(self) -> None:
        for client in self.clients:
            client.disconnect()
            client.loop_stop()
        self.link.stop()
        self.broker.stop()


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    made = Rig(tmp_path_factory.mktemp("rig"))
    yield made
    made.close()


def arrivals(rig, client, topics):
    """Publish to topics in turn, then a message that may pass; return the topics that the server heard before it."""
    while not rig.heard.empty():
        rig.heard.get()
    for topic in topics:
        client.publish(topic, b"x", qos=1).wait_for_publish(10)
    name = client._client_id.decode().removeprefix("client-")
    last = f"{ROOT}/{name}/log/last"
    client.publish(last, b"end", qos=1).wait_for_publish(10)
    found = []
    while (topic := rig.heard.get(timeout=10)[0]) != last:
        found.append(topic)
    return found


def concrete(channel):
    return channel.replace("+", "one")


def test_a_device_speaks_on_its_own_topics(rig):
    client = rig.device("pi-a")
    mine = [f"{ROOT}/pi-a/{concrete(channel)}" for channel in UP if channel != "tm/+"]
    mine += [f"{ROOT}/pi-a/tm/{cls}" for cls in CLASSES]
    assert sorted(arrivals(rig, client, mine)) == sorted(mine)


def test_a_device_cannot_speak_for_another(rig):
    client = rig.device("pi-b")
    theirs = [f"{ROOT}/pi-a/{concrete(channel)}" for channel in UP] + [f"{ROOT}/pi-a/tm/{cls}" for cls in CLASSES]
    assert arrivals(rig, client, theirs) == []
    assert arrivals(rig, client, ["strop/v1/other/pi-b/state/birth", f"{ROOT}/pi-b/x/state/birth"]) == []


def test_a_device_cannot_acknowledge_or_order_itself(rig):
    client = rig.device("pi-c")
    assert arrivals(rig, client, [f"{ROOT}/pi-c/tm/ack", f"{ROOT}/pi-c/tm/other"]) == []
    spy = rig.device("pi-c", files=(rig.folder / "pi-c.crt", rig.folder / "pi-c.key"), suffix="-spy")
    for channel in DOWN:
        client.publish(f"{ROOT}/pi-c/{concrete(channel)}", b"forged", qos=1).wait_for_publish(10)
    rig.link.publish(f"{ROOT}/pi-c/twin/desired", b"genuine")
    assert spy.heard.get(timeout=10) == (f"{ROOT}/pi-c/twin/desired", b"genuine")


def test_a_device_hears_only_what_is_said_to_it(rig):
    client = rig.device("pi-d")
    rig.link.publish(f"{ROOT}/pi-a/twin/desired", b"for another")
    rig.link.publish(f"{ROOT}/pi-a/tm/ack", b"for another")
    for channel in DOWN:
        rig.link.publish(f"{ROOT}/pi-d/{concrete(channel)}", b"mine")
    heard = [client.heard.get(timeout=10)[0] for _ in DOWN]
    assert heard == [f"{ROOT}/pi-d/{concrete(channel)}" for channel in DOWN]


def refused(rig, context):
    """True if the broker lets nobody in with this TLS context."""
    with socket.create_connection(("127.0.0.1", rig.broker.port), 10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
                # MQTT CONNECT, protocol 3.1.1, client id "x": TLS 1.3 refuses a missing certificate only now.
                wrapped.sendall(bytes.fromhex("100d00044d515454040200 3c000178".replace(" ", "")))
                return wrapped.recv(4) == b""
        except (ssl.SSLError, ConnectionError):
            return True


def test_no_certificate_no_entry(rig):
    context = ssl.create_default_context(cafile=str(rig.ca / "ca.crt"))
    assert refused(rig, context)
    context.load_cert_chain(*pair(rig.folder, rig.ca, "pi-e"))
    assert not refused(rig, context)


def test_a_certificate_of_another_ca_is_refused(rig, tmp_path):
    ca.create_ca(tmp_path / "ca", now=time.time())
    context = ssl.create_default_context(cafile=str(rig.ca / "ca.crt"))
    context.load_cert_chain(*pair(tmp_path, tmp_path / "ca", "pi-a"))
    assert refused(rig, context)


def test_plain_text_is_refused(rig):
    with socket.create_connection(("127.0.0.1", rig.broker.port), 10) as plain:
        plain.sendall(bytes.fromhex("100d00044d51545404020 03c000178".replace(" ", "")))
        plain.settimeout(10)
        with contextlib.suppress(ConnectionError):
            assert plain.recv(4)[:1] != b"\x20"  # no CONNACK


def test_the_server_connects_again_after_the_broker_died(rig):
    rig.ready.get(timeout=10)
    rig.broker._child.kill()
    rig.broker._child.wait()
    assert not rig.broker.is_alive
    rig.broker.start()
    assert rig.ready.get(timeout=20)
    assert rig.link.is_connected


def test_the_access_list_never_grants_the_acknowledgement():
    lines = access_list("default").splitlines()
    writable = [line.split()[-1] for line in lines if line.startswith("pattern write")]
    assert not any(topic.endswith(("tm/ack", "tm/+", "#")) for topic in writable)
    assert len(writable) == len(UP) - 1 + len(CLASSES)


def files_of(folder):
    ca.create_ca(folder / "ca", now=time.time())
    certificate, key = ca.issue_server(folder / "ca", now=time.time())
    return BrokerFiles(folder / "ca" / "ca.crt", certificate, key)


def test_a_busy_port_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        broker = Mosquitto(tmp_path, "default", "127.0.0.1", port, files=files_of(tmp_path))
        with pytest.raises(BrokerError, match=rf"port {port} on 127.0.0.1 is busy; choose another with --mqtt-port"):
            broker.start()
        assert not broker.is_alive


def test_a_configuration_that_mosquitto_refuses_is_reported_with_its_last_words(tmp_path):
    files = files_of(tmp_path)
    files.key.write_text("no key")
    broker = Mosquitto(tmp_path, "default", "127.0.0.1", 0, files=files)
    with pytest.raises(BrokerError, match=r"mosquitto did not start: .*broker.log") as caught:
        broker.start()
    assert "\n" not in str(caught.value)
    assert not broker.is_alive


def test_without_mosquitto_the_install_line_is_given(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BrokerError, match="is not installed; install it: sudo apt-get install mosquitto"):
        find_mosquitto()


def test_the_broker_of_a_killed_server_is_ended_by_the_next_one(tmp_path):
    files, port = files_of(tmp_path), free_port("127.0.0.1")
    orphan = Mosquitto(tmp_path / "b", "default", "127.0.0.1", port, files=files)
    orphan.start()
    heir = Mosquitto(tmp_path / "b", "default", "127.0.0.1", port, files=files)
    heir.start()
    assert orphan._child.wait(10) is not None
    assert heir.is_alive
    heir.stop()


def test_a_pid_file_that_names_another_process_hurts_nobody(tmp_path):
    (tmp_path / "broker.pid").write_text("1\n")
    broker = Mosquitto(tmp_path, "default", "127.0.0.1", 0, files=files_of(tmp_path))
    broker.start()
    broker.stop()
    broker.stop()
    assert Path("/proc/1").exists()
