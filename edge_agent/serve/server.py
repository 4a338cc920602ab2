# SPDX-License-Identifier: Apache-2.0
"""Sockets around the api: HTTP/1.1 on loopback and on a Unix socket, bounded in connections, bytes and seconds.

One thread per connection, and no more connections than ``Limits.connections``: further ones are told 503 at once. A web
page in a browser on the device must not reach the model: a request over TCP whose Host is not this machine is refused
(DNS rebinding), and no answer allows another origin.
"""

import contextlib
import http.server
import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_agent.embedding import meet
from edge_agent.serve.api import Api, Request, Response, failure
from edge_agent.serve.bodies import BodyError, declared_length, read_body
from edge_agent.serve.desk import Desk
from edge_contract.errors import UsageError

__all__ = ["HOST", "Limits", "Server"]

HOST: Final = "127.0.0.1"
_OWN_NAMES: Final = ("localhost", "127.0.0.1", "[::1]", "")
_BUSY: Final = failure(503, "busy", "too many connections", **{"Retry-After": "1"})


@dataclass(frozen=True)
class Limits:
    """What a client may ask for.

    Attributes:
        body: Bytes of a body.
        connections: Open at a time, idle ones included.
        idle_s: A connection without a byte for so long is closed.
        body_s: Within so long the whole body must come.
    """

    body: int = 8 * 1024 * 1024
    connections: int = 32
    idle_s: float = 30.0
    body_s: float = 30.0


class Server:
    """The endpoint, until ``close``.

    Args:
        desk: Where the model is.
        port: On loopback; 0 for any free one, None for no TCP.
        path: Of a Unix socket; its folder must exist.
        limits: What a client may ask for.

    Raises:
        UsageError: Neither port nor path, or one that cannot be used.
    """

    def __init__(
        self, desk: Desk, *, port: int | None = None, path: Path | None = None, limits: Limits | None = None
    ) -> None:
        if port is None and path is None:
            raise UsageError("neither a port nor a Unix socket", where="serve", fix="name one of them")
        self.limits, self.api = limits or Limits(), Api(desk)
        self._path = path
        self._listeners: list[socket.socket] = []
        try:
            if port is not None:
                self._listeners.append(socket.create_server((HOST, port), backlog=64))
            if path is not None:
                self._listeners.append(meet(path, listening=True))
        except (OSError, OverflowError) as error:
            self._close_listeners()
            raise UsageError(f"cannot listen: {error}", where=f"port {port}, socket {path}") from error
        self.port = self._listeners[0].getsockname()[1] if port is not None else None
        self._room = threading.BoundedSemaphore(self.limits.connections)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_closed = False
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=(listener,), name="strop http", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._is_closed:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if not self._room.acquire(blocking=False):
                _turn_away(client)
                continue
            with self._lock:
                self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), name="strop http client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if client.family != socket.AF_UNIX:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError):  # gone, or silent for too long
                _Handler(client, ("", 0), self)  # type: ignore[arg-type]  # it wants a BaseServer and only keeps it
        finally:
            with self._lock:
                self._open.discard(client)
            client.close()
            self._room.release()

    def close(self) -> None:
        """Stop to listen, and end every connection."""
        self._is_closed = True
        self._close_listeners()
        with self._lock:
            for client in self._open:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
            listener.close()


def _turn_away(client: socket.socket) -> None:
    """Tell one client too many, without waiting for what it wants."""
    body = _BUSY.to_bytes()
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with contextlib.suppress(OSError), client:
        client.settimeout(1.0)
        client.sendall(f"{head}Retry-After: 1\r\nConnection: close\r\n\r\n".encode() + body)
        client.shutdown(socket.SHUT_WR)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection: parsing is the standard library's, the rest is the api's."""

    protocol_version = "HTTP/1.1"
    server_version = "strop"
    sys_version = ""
    server: Any

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.limits.idle_s)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the standard library's
        """Say nothing: a request is no news, and what fails is in its answer."""

    def handle_expect_100(self) -> bool:
        """Say "go on" only to a body that will be read."""
        try:
            length = declared_length(self.headers)
        except BodyError as error:
            return self._fail(error)
        if length is not None and length > self.server.limits.body:
            return self._fail(BodyError(413, f"{length} bytes, more than {self.server.limits.body}"))
        return super().handle_expect_100()

    def _fail(self, error: BodyError) -> bool:
        self.close_connection = True
        self._send(failure(error.status, "bad_request", error.reason))
        return False

    def do_GET(self) -> None:
        has_body = self.headers.get_all("Transfer-Encoding") or self.headers.get("Content-Length", "0") != "0"
        if has_body:
            self.close_connection = True  # it is not read, so nothing after it can be told apart
        self._answer(b"")

    do_HEAD = do_DELETE = do_PUT = do_PATCH = do_OPTIONS = do_GET  # noqa: N815

    def do_POST(self) -> None:
        limits = self.server.limits
        try:
            body = read_body(self.rfile, self.headers, limits.body, limits.body_s)
        except BodyError as error:
            self._fail(error)
            return
        self._answer(body)

    def _answer(self, body: bytes) -> None:
        if not self._is_for_us():
            self._send(failure(403, "wrong_host", "the Host of the request is not this machine"))
            return
        request = Request(self.command, self.path, self.headers.get("Content-Type", ""), body)
        self._send(self.server.api.answer(request))

    def _is_for_us(self) -> bool:
        if self.connection.family == socket.AF_UNIX:
            return True  # only a program with the right to the file comes here
        host = self.headers.get("Host", "").strip()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return name.lower() in _OWN_NAMES

    def _send(self, response: Response) -> None:
        body = response.to_bytes()
        self.send_response(response.status)
        for key, value in {**response.headers, "Content-Type": "application/json"}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Say in JSON what the standard library found wrong with a request line or its headers."""
        del explain
        self.close_connection = True
        if not hasattr(self, "headers"):
            self.request_version = self.protocol_version
        self._send(failure(code, "bad_request", message or os.strerror(0)))
