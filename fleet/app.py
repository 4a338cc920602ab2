# SPDX-License-Identifier: Apache-2.0
"""The only place that wires the fleet server: one process, one broker child, three listeners, one engine thread."""

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import secrets
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette

from edge_contract.errors import StoreError, StropError
from fleet.adapters import broker, ca, credentials, telemetry
from fleet.adapters.blobs import BlobStore
from fleet.adapters.broker import BrokerFiles, Mosquitto, reachable
from fleet.adapters.delta_maker import DeltaMaker
from fleet.adapters.deltas import DeltaStore
from fleet.adapters.desk import Addresses
from fleet.adapters.ingest import Ingest
from fleet.adapters.judging import WindowJudge
from fleet.adapters.link import LinkFiles, ServerLink
from fleet.adapters.operations import Operations
from fleet.adapters.sqlite import Store
from fleet.config import Endpoints, FleetConfig
from fleet.web.capture_api import capture_device_routes
from fleet.web.devices_api import devices_app
from fleet.web.enrol_api import enrol_app
from fleet.web.identity_api import identity_routes
from fleet.web.operator import operator_app
from fleet.web.peer import Denials, PeerProtocol

__all__ = ["serve"]

_log = logging.getLogger("strop.fleet")

TICK_S = 1.0
HOUSEKEEPING_S = 60.0


class _Listener(uvicorn.Server):
    """A uvicorn server that leaves signals to us: three of them share one process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind(host: str, port: int, option: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)  # a second server on the port fails here at the latest
    except OSError as error:
        listener.close()
        what = f"port {port} on {host} cannot be used: {error.strerror}"
        is_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        fix = (
            f"choose another with {option}, or 0 for any" if is_port else "give an address of this machine with --host"
        )
        raise StropError(what, where="strop fleet serve", fix=fix) from error
    return listener


def _url(scheme: str, host: str, bound: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{bound.getsockname()[1]}"


@contextlib.contextmanager
def _only_one(data: Path) -> Iterator[None]:
    """Hold the data folder's lock: two servers on one database would each order devices about."""
    with (data / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError("another fleet server runs on this data folder", where=str(data)) from error
        yield


class _Engine:
    """A thread that ticks each second and whenever it is woken."""

    def __init__(self, operations: Operations, config: FleetConfig) -> None:
        self._operations, self._config = operations, config
        self._woken, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._kept_house = 0.0

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        self._stopped.set()
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._woken.clear()
            try:
                self._operations.rollouts.tick()
                self._keep_house()
            except Exception:  # a full disk today must not stop tomorrow's deadlines
                _log.exception("the engine's step failed; it is tried again")
            self._woken.wait(TICK_S)

    def _keep_house(self) -> None:
        if time.monotonic() - self._kept_house < HOUSEKEEPING_S:
            return
        self._kept_house = time.monotonic()
        now = self._operations.clock()
        self._operations.trust.tuf.refresh(now)
        before = now - self._config.retention_days * 86_400
        self._operations.store.write(lambda db: telemetry.prune(db, before))


class FleetServer:
    """Everything that runs, from the lock to the listeners; ``open`` undoes itself when a part fails.

    Args:
        data: The data folder.
        config: Where to listen.
    """

    def __init__(self, data: Path, config: FleetConfig) -> None:
        self._data, self._config, self._stack = data, config, contextlib.ExitStack()

    def open(self) -> Endpoints:
        """Start all but the listeners' loops, and return where they will answer.

        Raises:
            StropError: A port is busy, mosquitto is missing, the data folder is used or unreadable.
        """
        try:
            return self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop everything, in the reverse order of the start."""
        self._stack.close()

    def _open(self) -> Endpoints:
        data, config, stack = self._data, self._config, self._stack
        self._claim()
        certificate, key = ca.issue_server(data / "ca", config.advertised, now=time.time())
        self._tls = {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
        if not (revoked := data / "ca" / ca.REVOCATIONS).exists():
            ca.write_revocations(data / "ca", [], now=time.time())
        files = BrokerFiles(data / "ca" / "ca.crt", certificate, key, revoked)
        self._broker = Mosquitto(data / "broker", config.tenant, config.host, config.mqtt_port, files=_resolved(files))
        stack.callback(self._broker.stop)
        self._broker.start()
        self._wire()
        return self._endpoints()

    def _claim(self) -> None:
        """Take ports and folder before anything is written, so that a refusal leaves the disk as it was."""
        data, config, stack = self._data, self._config, self._stack
        is_used = (data / "lock").exists()
        if is_used:  # before the ports: another server on this folder holds those, too
            stack.enter_context(_only_one(data))
        self._sockets = [
            stack.enter_context(_bind(config.host, port, option))
            for port, option in (
                (config.http_port, "--http-port"),
                (config.device_port, "--device-port"),
                (config.enrol_port, "--enrol-port"),
            )
        ]
        broker.check(data / "broker", config.host, config.mqtt_port)
        credentials.init(data, now=time.time())
        if not is_used:
            stack.enter_context(_only_one(data))

    def _wire(self) -> None:
        data, config, stack = self._data, self._config, self._stack
        store = Store(data / "fleet.db")
        stack.callback(store.close)
        blobs = BlobStore(data / "blobs")
        addresses = Addresses(
            config.tenant, config.advertised, self._broker.port, _url("https", config.advertised, self._sockets[1])
        )
        client_certificate, client_key = ca.issue_client(data / "ca", now=time.time())
        self._link = ServerLink(
            config.tenant,
            LinkFiles(data / "ca" / "ca.crt", client_certificate, client_key),
            on_message=self._heard,
            on_ready=self._republish,
        )
        self.operations = Operations(
            store,
            blobs,
            credentials.open_trust(data),
            addresses=addresses,
            clock=time.time,
            random_bytes=secrets.token_bytes,
            publish=lambda message: self._link.publish(message.topic, message.payload, retain=message.retain),
        )
        self._engine = _Engine(self.operations, config)
        self._ingest = Ingest(
            store,
            WindowJudge(blobs),
            clock=time.time,
            publish=self._link.publish,
            wake=self._engine.wake,
            identities=self.operations.identities,
        )
        self._denials = Denials()
        self.operations.identities.on_revoked = self._cut_off
        self._link.start(reachable(config.host), self._broker.port)
        stack.callback(self._link.stop)
        self._engine.start()
        stack.callback(self._engine.stop)
        self._deltas = DeltaStore(data / "deltas")
        maker = DeltaMaker(store, blobs, self._deltas, data / "deltas")
        self.operations.desk.on_release = maker.wake
        maker.start()
        stack.callback(maker.stop)

    def _cut_off(self, device: str) -> None:
        """Let both listeners refuse what was revoked, and take a device's present connection away."""
        self._denials.reload(self._data / "ca" / ca.REVOCATIONS)
        self._broker.reload()
        self._link.take_over(device)

    def _heard(self, name: str, payload: bytes, retained: bool) -> None:  # noqa: FBT001 - paho's thread calls it
        self._ingest.handle(name, payload, retained=retained)

    def _republish(self) -> None:
        self.operations.rollouts.republish()

    def _endpoints(self) -> Endpoints:
        host, (http, device, enrol) = self._config.advertised, self._sockets
        return Endpoints(
            _url("http", reachable(self._config.host), http),
            _url("https", host, device),
            _url("https", host, enrol),
            host,
            self._broker.port,
            os.getpid(),
        )

    def listeners(self) -> list[tuple[_Listener, socket.socket]]:
        """Return the three listeners with their sockets."""
        operations = self.operations
        token = credentials.operator_token(self._data)
        operator = operator_app(operations, token, broker_is_up=lambda: self._link.is_connected)
        device_tls: dict[str, Any] = {
            "ssl_ca_certs": str(self._data / "ca" / "ca.crt"),
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
        }
        devices = devices_app(operations.trust.tuf, operations.blobs, self._deltas)
        devices.router.routes.extend(identity_routes(operations.identities))
        devices.router.routes.extend(capture_device_routes(operations.captures, operations.identities))
        apps: tuple[tuple[Starlette, dict[str, Any]], ...] = (
            (operator, {}),
            (devices, {**self._tls, **device_tls, "http": PeerProtocol}),
            (enrol_app(operations), self._tls),
        )
        listeners = [(_listener(app, tls), bound) for (app, tls), bound in zip(apps, self._sockets, strict=True)]
        self._denials.guard(listeners[1][0].config, operations.identities.deny())
        return listeners

    async def watch_broker(self) -> None:
        """Start the broker again whenever it has died; the link connects and republishes by itself."""
        while True:
            await asyncio.sleep(TICK_S)
            if self._broker.is_alive:
                continue
            _log.error("the broker has ended; it is started again")
            with contextlib.suppress(StropError):
                await asyncio.to_thread(self._broker.start)


def _resolved(files: BrokerFiles) -> BrokerFiles:
    revoked = files.revoked.resolve() if files.revoked else None
    return BrokerFiles(files.ca.resolve(), files.certificate.resolve(), files.key.resolve(), revoked)


def _listener(app: Starlette, tls: dict[str, Any]) -> _Listener:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=3,
        **tls,
    )
    return _Listener(config)


async def _run(server: FleetServer, on_ready: Callable[[], None]) -> None:
    listeners = server.listeners()
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = [asyncio.create_task(listener.serve(sockets=[bound])) for listener, bound in listeners]
    watching = asyncio.create_task(server.watch_broker())
    while not all(listener.started for listener, _ in listeners) and not any(task.done() for task in serving):
        await asyncio.sleep(0.01)
    on_ready()
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([waiting, *serving], return_when=asyncio.FIRST_COMPLETED)
    watching.cancel()
    for listener, _ in listeners:
        listener.should_exit = True
    await asyncio.gather(*serving)
    waiting.cancel()


def serve(data: Path, config: FleetConfig, on_ready: Callable[[Endpoints], None]) -> None:
    """Run the fleet server until SIGTERM or Ctrl-C; the broker child ends with it.

    Args:
        data: The data folder; keys and database are made when it is new.
        config: Where to listen.
        on_ready: Called once with the real addresses, when all of them answer.

    Raises:
        StropError: It cannot start; nothing is left running.
    """
    server = FleetServer(data, config)
    endpoints = server.open()

    def ready() -> None:
        endpoints.write(data)
        on_ready(endpoints)

    try:
        asyncio.run(_run(server, ready))
    finally:
        (data / "endpoints.json").unlink(missing_ok=True)
        server.close()
