# SPDX-License-Identifier: Apache-2.0
"""``python -m edge_agent.tuf_conformance``: our verifier behind the three commands that TUF's conformance suite calls.

The suite (theupdateframework/tuf-conformance) plays repositories over plain HTTP on loopback and looks at exit
codes, requests and files. What it drives is ``DeviceUpdater``, the very class that a device trusts; only the way to
the server (no mTLS) and the clock (no floor: it has no enrolment that could have set one) are the suite's.

Reference: CLIENT-CLI.md of the suite; the TUF specification 1.0.34, §5.
"""

import argparse
import http.client
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from tuf.api.exceptions import DownloadError as TufDownloadError
from tuf.api.exceptions import RepositoryError
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent.adapters.tuf_client import DeviceUpdater, Fetcher
from edge_contract import durable
from edge_contract.errors import SignatureError, StropError, UsageError

__all__ = ["main"]

_ANCHOR: Final = "anchor"
"""The root of the ``init``: each start walks from it, as a device walks from the root of its enrolment."""
_TIMEOUT_S: Final = 15.0


class _PlainFetcher(FetcherInterface):
    """The device's fetcher over plain HTTP, one connection for each file: the suite's server closes it anyway."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise UsageError(f"'{url}' is not an http address", fix="give the suite's own address")
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S)
        path = quote(url.removeprefix(f"{parts.scheme}://{parts.netloc}"), safe="/%")
        try:
            return Fetcher(connection).fetch(f"http://{parts.netloc}{path}")
        finally:
            connection.close()  # the body is in memory: its length was limited


def _init(options: argparse.Namespace) -> None:
    root = Path(options.trusted_root).read_bytes()
    options.metadata_dir.mkdir(parents=True, exist_ok=True)
    durable.write(options.metadata_dir / _ANCHOR, root)
    durable.write(options.metadata_dir / "root.json", root)


def _updater(options: argparse.Namespace) -> DeviceUpdater:
    root = (options.metadata_dir / _ANCHOR).read_bytes()
    return DeviceUpdater(options.metadata_dir, options.metadata_url, _PlainFetcher(), root, time.time())


def _refresh(options: argparse.Namespace) -> None:
    _updater(options).refresh()


def _download(options: argparse.Namespace) -> None:
    updater = _updater(options)
    updater.refresh()
    for name in options.target_name:
        target = updater.get_targetinfo(name)
        if target is None:
            raise SignatureError(f"target '{name}' is not signed", where=options.metadata_url)
        path = str(options.target_dir / quote(name, safe=""))
        if updater.find_cached_target(target, path) is None:
            updater.download_target(target, path, options.target_base_url)


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m edge_agent.tuf_conformance", description=__doc__)
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-base-url")
    parser.add_argument("--target-dir", type=Path)
    verbs = parser.add_subparsers(required=True)
    init = verbs.add_parser("init")
    init.add_argument("trusted_root")
    init.set_defaults(verb=_init)
    verbs.add_parser("refresh").set_defaults(verb=_refresh)
    verbs.add_parser("download").set_defaults(verb=_download)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Carry out one command; return 0, or 1 with one line on stderr when anything was refused."""
    options = _parse(words)
    try:
        options.verb(options)
    except (TufDownloadError, RepositoryError, StropError, ValueError, OSError) as error:
        sys.stderr.write(f"error: {type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
