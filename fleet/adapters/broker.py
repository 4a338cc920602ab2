# SPDX-License-Identifier: Apache-2.0
"""The MQTT broker: a mosquitto child that the server owns, with mTLS and one access list per device.

The configuration is generated at each start. Nothing is persisted and nothing is saved on change (that would
cut the broker from about 20 000 to 230 messages a second): devices keep their rows until our ``tm/ack``, and
the server republishes its retained messages, so an empty broker costs nothing.
"""

import contextlib
import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_contract import durable
from edge_contract.batches import CLASSES, MAX_BATCH_BYTES
from edge_contract.enrolment import SERVER_NAME
from edge_contract.errors import BrokerError
from edge_contract.topics import DOWN, ROOT, UP

__all__ = [
    "INSTALL",
    "Mosquitto",
    "access_list",
    "check",
    "find_mosquitto",
    "free_port",
    "is_free",
    "raise_file_limit",
    "reachable",
    "settings",
]

INSTALL: Final = "install it: sudo apt-get install mosquitto"
# mosquitto started by root becomes this user; started by anyone else it stays who it is. Not by name from the
# environment: after a plain ``su`` that still names the caller, who may not read the keys.
_USER: Final = "root" if os.geteuid() == 0 else "mosquitto"
_PLACES: Final = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")  # Debian puts it outside a user's PATH
_START_S: Final = 10.0
_STOP_S: Final = 5.0


@dataclass(frozen=True)
class BrokerFiles:
    """Certificates of the broker's listener, PEM."""

    ca: Path
    certificate: Path
    key: Path
    revoked: Path | None = None


def find_mosquitto() -> str:
    """Return the path of mosquitto.

    Raises:
        BrokerError: It is not installed; the message holds the install line.
    """
    path = os.environ.get("PATH", "")
    places = os.pathsep.join([path, *_PLACES]) if path else ""  # an emptied PATH means: nothing
    found = shutil.which("mosquitto", path=places) if places else None
    if found is None:
        raise BrokerError("mosquitto, the MQTT broker, is not installed", fix=INSTALL)
    return found


def access_list(tenant: str) -> str:
    """Return mosquitto's ACL file: a device speaks below its own name only, and the server everywhere.

    ``%u`` is the certificate's common name. ``tm/+`` is spelled out class by class, because ``tm/ack`` is the
    server's alone: a device that could write it might make another reader believe in a commit.

    Example:
        >>> "pattern write strop/v1/acme/%u/tm/result" in access_list("acme")
        True
        >>> "pattern write strop/v1/acme/%u/tm/+" in access_list("acme")
        False
    """
    lines = [f"user {SERVER_NAME}", f"topic readwrite {ROOT}/#", "topic read $SYS/broker/#", ""]
    return "\n".join(lines) + "\n" + device_access(tenant)


def device_access(tenant: str) -> str:
    """Return the part of the ACL file that is about devices."""
    spoken = [channel for channel in UP if channel != "tm/+"] + [f"tm/{name}" for name in CLASSES]
    lines = [f"pattern write {ROOT}/{tenant}/%u/{channel}" for channel in spoken]
    lines += [f"pattern read {ROOT}/{tenant}/%u/{channel}" for channel in DOWN]
    return "\n".join(lines) + "\n"


def plain_settings(port: int, acl: Path) -> str:
    """Return a second listener without certificates, on loopback: for measuring with thousands of devices at once.

    A device is who its user name says. The server's own name has no rights there.
    """
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", f"acl_file {acl}"]
    return "\n".join(lines) + "\n"


def settings(host: str, port: int, files: BrokerFiles, acl: Path, user: str) -> str:
    """Return mosquitto's configuration.

    Example:
        >>> files = BrokerFiles(Path("ca"), Path("crt"), Path("key"))
        >>> "require_certificate true" in settings("127.0.0.1", 8883, files, Path("acl"), "nobody")
        True
    """
    lines = [
        "per_listener_settings true",
        f"user {user}",  # started by root it would become 'mosquitto', who may not read the keys
        "persistence false",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "connection_messages false",
        f"message_size_limit {2 * MAX_BATCH_BYTES}",
        "max_queued_messages 20000",
        "max_inflight_messages 1000",
        "set_tcp_nodelay true",
        f"listener {port} {host}",
        f"cafile {files.ca}",
        f"certfile {files.certificate}",
        f"keyfile {files.key}",
        "tls_version tlsv1.2",  # at least; 1.3 is taken where both sides know it
        "require_certificate true",
        "use_identity_as_username true",
        "allow_anonymous false",
        f"acl_file {acl}",
    ]
    if files.revoked is not None:
        lines.append(f"crlfile {files.revoked}")
    return "\n".join(lines) + "\n"


def reachable(host: str) -> str:
    """Return the address by which this machine reaches its own listener.

    Example:
        >>> reachable("0.0.0.0"), reachable("10.0.0.5")
        ('127.0.0.1', '10.0.0.5')
    """
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def is_free(host: str, port: int) -> bool:
    """True if the port can be bound now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(host: str) -> int:
    """Return a port that was free an instant ago."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _dying_with_us() -> list[str]:
    """The words before a command that let the kernel end it when we are killed.

    Where util-linux is missing, the broker of a killed server is ended by the next start (``broker.pid``).
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []


def raise_file_limit() -> int:
    """Take as many open files as the system lets us, for us and the child: each device is one. Returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Mosquitto:
    """The broker as a child process; its files lie in ``folder``.

    Args:
        folder: For ``mosquitto.conf``, ``acl``, ``broker.log`` and ``broker.pid``.
        tenant: First level of the topics.
        host, port: Where it listens; port 0 takes a free one.
        files: The listener's certificates.
        plain_port: Of a second listener without certificates on loopback, 0 for none.
        name: By which devices reach it; empty for ``host``.
    """

    def __init__(
        self,
        folder: Path,
        tenant: str,
        host: str,
        port: int,
        *,
        files: BrokerFiles,
        plain_port: int = 0,
        name: str = "",
    ) -> None:
        self._folder, self._tenant, self._files, self._plain = folder, tenant, files, plain_port
        self.host, self.port, self._name = host, port, name or host
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Write the configuration, start the child and wait until it takes connections.

        Raises:
            BrokerError: mosquitto is missing, the port is busy, or it ended at once (with its last words).
        """
        program = check(self._folder, self.host, self.port)
        self._folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port(self.host)
        acl, config = self._folder / "acl", self._folder / "mosquitto.conf"
        durable.write(acl, access_list(self._tenant).encode(), mode=durable.PRIVATE)
        text = settings(self.host, self.port, self._files, acl.resolve(), _USER)
        if self._plain:
            plain = self._folder / "acl-plain"
            durable.write(plain, device_access(self._tenant).encode(), mode=durable.PRIVATE)
            text += plain_settings(self._plain, plain.resolve())
        durable.write(config, text.encode(), mode=durable.PRIVATE)
        raise_file_limit()
        with (self._folder / "broker.log").open("wb") as log:
            self._child = subprocess.Popen(
                [*_dying_with_us(), program, "-c", str(config.resolve())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the server alone, which then stops the broker last
            )
        (self._folder / "broker.pid").write_text(f"{self._child.pid}\n")
        self._wait_until_open()

    @property
    def is_alive(self) -> bool:
        """True while the child runs."""
        return self._child is not None and self._child.poll() is None

    @property
    def told(self) -> tuple[str, int]:
        """Where devices reach it."""
        return self._name, self.port

    @property
    def reach(self) -> tuple[str, int]:
        """Where this machine reaches it."""
        return reachable(self.host), self.port

    @property
    def pid(self) -> int:
        """Process id of the child, 0 before the start."""
        return self._child.pid if self._child else 0

    def reload(self) -> None:
        """Let the child read its certificates and the revocation list again; connections that stand stay."""
        if self._child is not None and self.is_alive:
            self._child.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End the child; does nothing when it has ended."""
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child = None
        (self._folder / "broker.pid").unlink(missing_ok=True)

    def _wait_until_open(self) -> None:
        assert self._child is not None
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._child.poll() is not None:
                break
            if _speaks_tls(reachable(self.host), self.port):
                return
            time.sleep(0.01)
        self.stop()
        lines = (self._folder / "broker.log").read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        raise BrokerError(f"mosquitto did not start: {last[:200]}", fix=f"see {self._folder / 'broker.log'}")


def check(folder: Path, host: str, port: int) -> str:
    """Return mosquitto's path if it can be started; nothing is written. A broker that a killed server left is ended.

    Raises:
        BrokerError: mosquitto is missing, or the port is busy.
    """
    program = find_mosquitto()
    _end_orphan(folder)
    if port and not is_free(host, port):
        raise BrokerError(f"port {port} on {host} is busy", fix="choose another with --mqtt-port, or 0 for any")
    return program


def _end_orphan(folder: Path) -> None:
    """End the broker of a server that was killed: it still holds our port."""
    for pid in _orphans(folder / "broker.pid", str((folder / "mosquitto.conf").resolve())):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + _STOP_S
            while time.monotonic() < deadline and any(_command(pid)):
                time.sleep(0.01)


def _speaks_tls(host: str, port: int) -> bool:
    """True if a TLS server answers, with a handshake or an alert.

    An open port alone proves nothing: mosquitto listens before it reads its keys, and ends when they are bad.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), 1.0) as plain, context.wrap_socket(plain):
            return True
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return False
    except ssl.SSLError:  # an alert: it wants a certificate
        return True
    except OSError:
        return False


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _orphans(pid_file: Path, config: str) -> Iterator[int]:
    """The process that the file names, if it still is a mosquitto with our configuration."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        words = _command(pid)
        if words and words[0].endswith("mosquitto") and config in words:
            yield pid
