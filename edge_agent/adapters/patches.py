# SPDX-License-Identifier: Apache-2.0
"""Bring the files of a bundle: by a patch on what the slots hold where there is one, else whole.

What comes by a patch is proved by its helper against the signed hash, and once more with all other files before the
folder becomes a slot. See ``edge_agent.delta`` for how, and docs/delta.md for why it cannot do harm.
"""

import http.client
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from edge_agent.adapters import tls
from edge_agent.adapters.download import Downloader
from edge_agent.adapters.slots import SlotStore
from edge_agent.delta.attempt import FailedPairs, Outcome, try_delta
from edge_contract.deltas import MAX_INDEX_BYTES, MIN_BYTES
from edge_contract.errors import DownloadError, ManifestError
from edge_contract.jobs import JobDocument
from edge_contract.manifest import MANIFEST_NAME, BundleFile, Manifest

__all__ = ["Fetcher"]

WORK: Final = "delta.partial"
"""Among the slots, so that what a power cut leaves is swept with them; the name ends as all that is not complete."""


class Fetcher:
    """Brings files, and remembers how each came until it is asked.

    Args:
        slots: Where bases are.
        python: An interpreter with the ``agent`` extra.
    """

    def __init__(self, slots: SlotStore, python: str = sys.executable) -> None:
        self._slots, self._python = slots, python
        self._failed = FailedPairs(slots.root.parent / "delta_failed.json")
        self._told: dict[str, dict[str, dict[str, Any]]] = {}

    def bring(
        self, job: JobDocument, entry: BundleFile, path: Path, source: Downloader, tell: Callable[[int], None]
    ) -> None:
        """Bring one file to a path whose folder exists.

        Raises:
            DownloadError, BundleError, Cancelled: As ``Downloader.fetch``.
        """
        outcome = self._by_patch(job, entry, path, source)
        if outcome is None or not outcome.is_there:
            source.fetch(entry.sha256, entry.size, path, tell)
        self._note(job.bundle, entry, outcome)

    def _by_patch(self, job: JobDocument, entry: BundleFile, path: Path, source: Downloader) -> Outcome | None:
        """Try a patch; None where there is nothing to try: a small file, or one of which bytes are there already."""
        if entry.size < MIN_BYTES or (path.exists() and path.stat().st_size):
            return None
        work = self._slots.folder(job.model, job.bundle).with_name(WORK)
        wanted = (entry.sha256, entry.size)
        held = self._held(job)
        if not held:
            return None
        server = _Server(source)
        return try_delta(wanted, path, held, server, work=work, failed=self._failed, python=self._python)

    def _held(self, job: JobDocument) -> Mapping[str, Path]:
        """Return SHA-256 → path of the files in the slots; the helper hashes the one that is used."""
        slots, found = self._slots.read(job.model), {}
        for bundle in dict.fromkeys((slots.factory, slots.standby, slots.active)):
            folder = self._slots.folder(job.model, bundle) if bundle not in ("", job.bundle) else None
            try:
                files = Manifest.from_bytes((folder / MANIFEST_NAME).read_bytes()).files if folder else ()
            except (OSError, ManifestError):
                continue
            found.update({f.sha256: folder / f.path for f in files if folder and (folder / f.path).is_file()})
        return found

    def _note(self, bundle: str, entry: BundleFile, outcome: Outcome | None) -> None:
        is_tried = outcome is not None and bool(outcome.codec)
        told = outcome if outcome is not None and is_tried else Outcome(entry.sha256)
        fetched = told.fetched + (0 if told.is_there else entry.size)
        row = {key: value for key, value in asdict(told).items() if value != ""}
        row.update(path=entry.path, size=entry.size, fetched=fetched)
        self._told = {bundle: {**self._told.get(bundle, {}), entry.path: row}}

    def facts(self, bundle: str) -> dict[str, Any]:
        """Return how the files of a bundle came since it was last asked: for the report of the order.

        ``fetched`` and ``full`` are bytes; ``files`` has a row for each, with ``codec`` if a patch brought it, and
        ``reason`` and ``blame`` if one was tried in vain.
        """
        files = list(self._told.pop(bundle, {}).values())
        if not files:
            return {}
        return {
            "fetched": sum(row["fetched"] for row in files),
            "full": sum(row["size"] for row in files),
            "codecs": sorted({"full" if "reason" in row else str(row.get("codec", "full")) for row in files}),
            "delta_failed": any("reason" in row for row in files),
            "files": files,
        }


class _Server:
    """The devices' listener as ``edge_agent.delta`` wants it: a list of patches, and blobs below another folder."""

    def __init__(self, source: Downloader) -> None:
        self._source = source
        url = f"{source.base_url.rstrip('/')}/deltas"
        self._patches = Downloader(url, source.context, source.throttle, source.wait)

    def offers(self, sha256: str) -> bytes:
        source, parts = self._source, urlsplit(self._source.base_url)
        connection: http.client.HTTPConnection
        if source.context is None:
            connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=tls.TIMEOUT_S)
        else:
            connection = tls.connect(source.base_url, source.context)
        path = f"{parts.path.rstrip('/')}/deltas/{quote(sha256)}"
        try:
            status, body = tls.exchange(connection, "GET", path, limit=MAX_INDEX_BYTES)
        finally:
            connection.close()
        if status != 200:
            raise DownloadError(f"the server answers {status}", where=path, fix="it makes no patches")
        return body

    def fetch(self, sha256: str, size: int, path: Path) -> None:
        self._patches.fetch(sha256, size, path)
