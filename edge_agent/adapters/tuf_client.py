# SPDX-License-Identifier: Apache-2.0
"""Ask the TUF repository which blobs are signed. Runs in the helper process: imports tuf.

``tuf.ngclient`` holds every rule (root chain, thresholds, rollback, freeze, mix and match). Ours are four
things around it: the trust anchor is always the root of the enrolment, the network is ``http.client`` over mTLS,
the time is the floored one, and files are written durably.
"""

import datetime as dt
import fcntl
import http.client
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tuf.api import exceptions
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent.adapters import time_floor, time_hint, tls
from edge_contract import delegations, durable
from edge_contract.errors import DownloadError, EnrolmentError, SignatureError, StropError
from edge_contract.software import SOFTWARE
from edge_contract.topics import is_name

__all__ = ["SIGNED_AT", "DeviceUpdater", "Fetcher", "refresh"]

SIGNED_AT: Final = "x-strop-signed-at"
"""Extra field of timestamp.json: when the server signed it, in seconds since 1970."""
_MAX_FILE_BYTES: Final = 5_000_000


class Fetcher(FetcherInterface):
    """One kept-alive connection: a TLS handshake costs a small board more than all the metadata.

    ngclient wraps what it does not know into its own error; ``trouble`` keeps ours for the caller.

    Args:
        connection: To the server of the metadata, not yet opened.
    """

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self.trouble: StropError | None = None

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            status, body = self._get(urlsplit(url).path)
        except StropError as error:
            self.trouble = error
            raise exceptions.DownloadError(str(error)) from error
        if status != http.client.OK:
            raise exceptions.DownloadHTTPError(f"HTTP {status} for {url}", status)
        return iter((body,))

    def _get(self, path: str) -> tuple[int, bytes]:
        return tls.exchange(self._connection, "GET", path, limit=_MAX_FILE_BYTES)

    def close(self) -> None:
        self._connection.close()


class DeviceUpdater(Updater):
    """ngclient's updater with our clock, and with files that survive a power cut.

    Args:
        folder: Where metadata that was verified is kept.
        metadata_url: The address below which metadata lies.
        fetcher: How it is fetched.
        root: The trust anchor, root.json's bytes; never the newest root that the folder holds.
        now: The time by which expiry is judged, in seconds since 1970.
    """

    def __init__(self, folder: Path, metadata_url: str, fetcher: FetcherInterface, root: bytes, now: float) -> None:
        super().__init__(str(folder), metadata_url, fetcher=fetcher, bootstrap=root)
        # It takes the system's clock in its constructor and offers no argument for another one.
        self._trusted_set.reference_time = dt.datetime.fromtimestamp(now, dt.UTC)

    def _persist_file(self, filename: str, data: bytes) -> None:
        durable.write(Path(filename), data)

    @property
    def signed_at(self) -> float:
        """When the server signed the timestamp in use, 0 if it does not say."""
        value = self._trusted_set.timestamp.unrecognized_fields.get(SIGNED_AT, 0)
        return float(value) if isinstance(value, int) else 0.0

    @property
    def targets_version(self) -> int:
        """Version of the targets in use."""
        return self._trusted_set.targets.version


def refresh(
    data: Path, base_url: str, wanted: Iterable[str], system_time: float, model: str = ""
) -> dict[str, dict[str, Any]]:
    """Refresh the metadata, then return what is signed about the wanted blobs.

    Args:
        data: The device's data folder; metadata lives in ``tuf/``, the trust anchor in ``identity/root.json``.
        base_url: The server's device URL; metadata is below ``/tuf/``.
        wanted: SHA-256 of blobs. For a bundle's manifest the files that it signs along are told as well.
        system_time: The system's clock, in seconds since 1970.
        model: The model that the blobs are wanted for: the team that signs it may have signed them, too.

    Returns:
        sha256 → {"length": bytes, "custom": object or None}.

    Raises:
        SignatureError: Expired, rolled back, signed by nobody whom we trust, or a blob that is not signed.
        DownloadError: No way to the server.
        EnrolmentError: Not enrolled, or the server refuses our certificate.
    """
    folder, root = data / "tuf", _anchor(data)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two helpers must not write the same metadata
        now = time_hint.now(data, [base_url], system_time)
        try:
            return _refresh(data, base_url, root, _Wish(tuple(wanted), model), now)
        except (DownloadError, SignatureError) as error:
            if not (tls.doubts_clock(error) or isinstance(error.__cause__, exceptions.ExpiredMetadataError)):
                raise
            now = time_hint.second_opinion(data, [base_url], system_time, now, error)
            return _refresh(data, base_url, root, _Wish(tuple(wanted), model), now)


@dataclass(frozen=True)
class _Wish:
    """Blobs, and the model whose they are."""

    blobs: tuple[str, ...]
    model: str

    def names(self, sha256: str) -> list[str]:
        """Under which names one may be signed: by the fleet, and by the team that has the model."""
        # The agent's own software is nobody's but the fleet's, whatever a team was given by a careless pattern.
        has_team = is_name(self.model) and self.model != SOFTWARE
        return [f"blobs/{sha256}", *([delegations.name_of(self.model, sha256)] if has_team else [])]


def _refresh(data: Path, base_url: str, root: bytes, wanted: _Wish, now: float) -> dict[str, dict[str, Any]]:
    folder = data / "tuf"
    fetcher = Fetcher(tls.connect(base_url, tls.device_context(data / "identity")))
    try:
        updater = DeviceUpdater(folder, f"{base_url.rstrip('/')}/tuf/", fetcher, root, now)
        updater.refresh()
        found = _look_up(updater, wanted)
    except (exceptions.DownloadError, exceptions.RepositoryError, ValueError, KeyError) as error:
        if fetcher.trouble is not None:
            raise fetcher.trouble from fetcher.trouble.__cause__  # its own cause tells whether dates were the trouble
        raise _explain(error, base_url, now) from error
    finally:
        fetcher.close()
    time_floor.remember(folder, updater.signed_at, now)
    return found


def _anchor(data: Path) -> bytes:
    path = data / "identity" / "root.json"
    try:
        return path.read_bytes()
    except OSError as error:
        fix = "enrol this device: strop agent enrol"
        raise EnrolmentError("no trusted root.json", where=str(path), fix=fix) from error


def _look_up(updater: DeviceUpdater, wanted: _Wish) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    queue = list(dict.fromkeys(wanted.blobs))
    for sha256 in queue:
        target = next(filter(None, map(updater.get_targetinfo, wanted.names(sha256))), None)
        if target is None or target.hashes.get("sha256") != sha256:
            fix = "sign the bundle with 'strop export keys sign' and publish targets.json"
            what = f"blob {sha256[:16]} is not signed in targets version {updater.targets_version}"
            raise SignatureError(what, fix=fix)
        found[sha256] = {"length": target.length, "custom": target.custom}
        queue += [name for name in _files(target) if name not in queue]
    return found


def _files(target: TargetFile) -> list[str]:
    custom = target.custom if isinstance(target.custom, dict) else {}
    files = custom.get("files", [])
    return [name for name in files if isinstance(name, str)] if isinstance(files, list) else []


def _explain(error: Exception, base_url: str, now: float) -> StropError:
    where, text = f"{base_url}/tuf", str(error)
    if isinstance(error, exceptions.ExpiredMetadataError):
        what = f"{text} (it is {dt.datetime.fromtimestamp(now, dt.UTC):%Y-%m-%d %H:%M} UTC)"
        return SignatureError(what, where=where, fix=f"{_renewal(text)}; installs wait, inference goes on")
    if isinstance(error, exceptions.BadVersionNumberError):
        fix = "the server shows old metadata: restore its newest state; nothing was changed here"
        return SignatureError(f"rolled back: {text}", where=where, fix=fix)
    if isinstance(error, exceptions.UnsignedMetadataError):
        fix = "publish root.json and targets.json of this fleet's own keys; nothing was changed here"
        return SignatureError(f"signed by nobody whom we trust: {text}", where=where, fix=fix)
    if isinstance(error, exceptions.DownloadHTTPError):
        return DownloadError(text, where=where, fix="publish a bundle first, or check the address")
    if isinstance(error, exceptions.DownloadError):
        return DownloadError(text, where=where, fix="it is tried again later; inference goes on")
    fix = "this is not our server's metadata; nothing was changed here"
    return SignatureError(f"metadata refused: {text}", where=where, fix=fix)


def _renewal(text: str) -> str:
    if "timestamp" in text or "snapshot" in text:
        return "the fleet server signs it anew while it runs: start it, or set this clock"
    return "renew it with 'strop export keys rotate' and publish it, or set this clock"
