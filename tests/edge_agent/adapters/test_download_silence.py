# SPDX-License-Identifier: Apache-2.0
"""A server that falls silent in the middle ends the attempt, and what came stays (pain 7)."""

import socket
import threading
from pathlib import Path

import pytest

from edge_agent.adapters import download
from edge_contract.errors import DownloadError

HALF = b"x" * 500_000


def test_a_silent_server_costs_the_timeout_and_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + HALF)
                over.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        source = download.Downloader(url, None, download.Throttle(), lambda _pause: False)
        with pytest.raises(DownloadError, match="no answer in time"):
            source.fetch("a" * 64, 1_000_000, tmp_path / "model")
        over.set()
        thread.join()
    assert 0 < (tmp_path / "model").stat().st_size <= len(HALF), "the next attempt asks for the rest"
