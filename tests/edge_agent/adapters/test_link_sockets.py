# SPDX-License-Identifier: Apache-2.0
"""A bad link costs no file descriptors: each connection's sockets go with it, not with the garbage collector."""

import gc
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.adapters.mqtt import Link, Listener, Whose
from tests.support.agent_process import until


@pytest.fixture
def rude() -> Iterator[tuple[str, int]]:
    """A broker that takes every connection and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                end, _ = listener.accept()
            except OSError:
                return
            end.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.fixture
def nobody() -> tuple[str, int]:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found: tuple[str, int] = listener.getsockname()
    return found


@pytest.mark.parametrize("peer", ["rude", "nobody"])
def test_a_link_that_fails_again_and_again_holds_the_sockets_of_one_attempt(
    peer: str, request: pytest.FixtureRequest
) -> None:
    failed: list[str] = []
    listener = Listener(lambda _: None, failed.append, lambda *_: None, lambda _: None)
    address = request.getfixturevalue(peer)
    gc.collect()
    gc.disable()
    try:
        before = len(list(Path("/proc/self/fd").iterdir()))
        link = Link(Whose("default", "pi", "boot"), address, lambda: None, listener, cap_s=0.01)
        link.start()
        until(lambda: len(failed) >= 25, "many attempts")
        assert len(list(Path("/proc/self/fd").iterdir())) - before <= 6
        link.stop()
    finally:
        gc.enable()
