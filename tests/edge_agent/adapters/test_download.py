# SPDX-License-Identifier: Apache-2.0
"""One blob over a real HTTP server that lies in every way we could think of."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge_agent.adapters.download import Cancelled, Downloader, Throttle
from edge_contract.errors import BundleError, DownloadError

BLOB = bytes(range(256)) * 12_000  # 3 MB
SHA = hashlib.sha256(BLOB).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves BLOB; ``trick`` says how it lies, ``asked`` remembers the Range headers."""

    trick = ""
    cut_after = 1_500_000

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        start = self.headers.get("Range")
        self.server.asked.append(start)
        offset = int(start.removeprefix("bytes=").rstrip("-")) if start else 0
        getattr(self, f"trick_{self.server.trick}", self.honest)(offset)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def honest(self, offset: int) -> None:
        if not offset:
            self.answer(200, BLOB, ETag=f'"{SHA}"')
            return
        assert self.headers["If-Range"] == f'"{SHA}"'
        self.answer(206, BLOB[offset:], Content_Range=f"bytes {offset}-{len(BLOB) - 1}/{len(BLOB)}")

    def trick_cut(self, offset: int) -> None:
        self.send_response(206 if offset else 200)
        self.send_header("Content-Length", str(len(BLOB) - offset))
        if offset:
            self.send_header("Content-Range", f"bytes {offset}-{len(BLOB) - 1}/{len(BLOB)}")
        self.end_headers()
        self.wfile.write(BLOB[offset : offset + self.server.cut_after])

    def trick_ignores_range(self, _offset: int) -> None:
        self.answer(200, BLOB)

    def trick_wrong_range(self, offset: int) -> None:
        self.answer(206, BLOB[offset + 7 :], Content_Range=f"bytes {offset + 7}-{len(BLOB) - 1}/{len(BLOB)}")

    def trick_portal(self, _offset: int) -> None:
        self.answer(200, b"<html>Please log in</html>")

    def trick_flipped(self, offset: int) -> None:
        body = bytearray(BLOB)
        body[2_000_000] ^= 1
        self.answer(
            206 if offset else 200, bytes(body[offset:]), Content_Range=f"bytes {offset}-{len(BLOB) - 1}/{len(BLOB)}"
        )

    def trick_missing(self, _offset: int) -> None:
        self.answer(404, b"not here")

    def trick_broken(self, _offset: int) -> None:
        self.answer(500, b"oops")

    def trick_refused_range(self, offset: int) -> None:
        self.answer(416, b"") if offset else self.honest(0)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


def loader(server: Server, wait=lambda _s: False, limit_bps: int = 0) -> Downloader:
    return Downloader(f"http://127.0.0.1:{server.server_port}", None, Throttle(limit_bps), wait)


def test_a_blob_arrives_whole(server: Server, tmp_path: Path) -> None:
    told: list[int] = []
    loader(server).fetch(SHA, len(BLOB), tmp_path / "b", told.append)
    assert (tmp_path / "b").read_bytes() == BLOB
    assert told[-1] == len(BLOB)
    assert told == sorted(told)
    loader(server).fetch(SHA, len(BLOB), tmp_path / "b")
    assert server.asked == [None], "what is there already is not fetched again"


def test_an_interrupted_download_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.trick = "cut"
    for _ in range(2):
        with pytest.raises(DownloadError):
            loader(server).fetch(SHA, len(BLOB), tmp_path / "b")
    server.trick = ""
    loader(server).fetch(SHA, len(BLOB), tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == BLOB
    assert server.asked == [None, "bytes=1500000-", "bytes=3000000-"]


def test_a_server_without_ranges_costs_a_full_download(server: Server, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(BLOB[:1000])
    server.trick = "ignores_range"
    loader(server).fetch(SHA, len(BLOB), tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == BLOB


def test_a_tail_that_a_power_cut_left_is_fetched_once_more_from_zero(server: Server, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(BLOB[:1_000_000] + b"\0" * 65536)
    loader(server).fetch(SHA, len(BLOB), tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == BLOB
    assert server.asked == ["bytes=1065536-", None]


def test_a_file_longer_than_the_blob_is_begun_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(BLOB + b"more")
    loader(server).fetch(SHA, len(BLOB), tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == BLOB


LIES = {
    "portal": (DownloadError, "26 bytes offered, 3072000 expected; look for a login page"),
    "missing": (DownloadError, "the server answers 404 Not Found; the bundle is not on the server"),
    "broken": (DownloadError, "the server answers 500"),
    "flipped": (BundleError, "has other bytes than its name says"),
}


@pytest.mark.parametrize("trick", LIES)
def test_each_lie_is_one_clear_error(server: Server, tmp_path: Path, trick: str) -> None:
    kind, text = LIES[trick]
    server.trick = trick
    with pytest.raises(kind, match=text):
        loader(server).fetch(SHA, len(BLOB), tmp_path / "b")


@pytest.mark.parametrize("trick", ["wrong_range", "refused_range"])
def test_a_lie_about_ranges_never_reaches_the_file(server: Server, tmp_path: Path, trick: str) -> None:
    (tmp_path / "b").write_bytes(BLOB[:1000])
    server.trick = trick
    with pytest.raises(DownloadError):
        loader(server).fetch(SHA, len(BLOB), tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == BLOB[:1000]


def test_flipped_bytes_are_thrown_away(server: Server, tmp_path: Path) -> None:
    server.trick = "flipped"
    (tmp_path / "b").write_bytes(BLOB[:1000])
    with pytest.raises(BundleError):
        loader(server).fetch(SHA, len(BLOB), tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert len(server.asked) == 2, "the resumed part is doubted once"


def test_a_cancel_keeps_what_is_there(server: Server, tmp_path: Path) -> None:
    chunks = iter([False] * 10 + [True])
    with pytest.raises(Cancelled):
        loader(server, wait=lambda _s: next(chunks)).fetch(SHA, len(BLOB), tmp_path / "b")
    assert 0 < (tmp_path / "b").stat().st_size < len(BLOB)


def test_the_bandwidth_limit_asks_for_the_right_pauses(server: Server, tmp_path: Path) -> None:
    pauses: list[float] = []
    loader(server, wait=lambda s: pauses.append(s) or False, limit_bps=1000).fetch(SHA, len(BLOB), tmp_path / "b")
    assert pauses[0] == pytest.approx(65.5, abs=5)
    assert pauses[-1] == pytest.approx(3072, abs=20), "the pauses were not slept, so the debt grows"


def test_no_server_is_a_download_error(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="no way to the server"):
        Downloader("http://127.0.0.1:9", None, Throttle(), lambda _s: False).fetch(SHA, 3, tmp_path / "b")


def test_a_download_that_is_held_stops_keeps_its_bytes_and_is_resumed(server: Server, tmp_path: Path) -> None:
    downloader = loader(server)
    object.__setattr__(downloader, "wait", lambda _s: setattr(downloader.throttle, "held", "the link is metered"))
    with pytest.raises(DownloadError, match="the link is metered; it goes on by itself"):
        downloader.fetch(SHA, len(BLOB), tmp_path / "b")
    assert 0 < (tmp_path / "b").stat().st_size < len(BLOB)
    loader(server).fetch(SHA, len(BLOB), tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == BLOB
