# SPDX-License-Identifier: Apache-2.0
"""Sockets that are bound before anything is written, and the servers that answer on them, in one process."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette

from edge_contract.errors import StropError

__all__ = ["Listener", "bind", "listener", "url_of"]


class Listener(uvicorn.Server):
    """A uvicorn server that leaves signals to us: three of them share one process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int, option: str) -> socket.socket:
    """Return a listening socket; raises StropError, which names the option, where the port or address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY on such sockets alone; without it each answer in two
    # writes, as uvicorn's are, waits 40 ms for the client's delayed acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(512)  # a second server on the port fails here at the latest
    except OSError as error:
        bound.close()
        what = f"port {port} on {host} cannot be used: {error.strerror}"
        is_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        fix = (
            f"choose another with {option}, or 0 for any" if is_port else "give an address of this machine with --host"
        )
        raise StropError(what, where="strop fleet serve", fix=fix) from error
    return bound


def url_of(scheme: str, host: str, bound: socket.socket) -> str:
    """Return where a bound socket answers."""
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{bound.getsockname()[1]}"


def listener(app: Starlette, tls: dict[str, Any]) -> Listener:
    """Return a server for an application; ``tls`` are uvicorn's words for it, none for plain HTTP."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=3,
        **tls,
    )
    return Listener(config)
