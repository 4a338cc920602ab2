# SPDX-License-Identifier: Apache-2.0
"""The slow steps of an order: what is signed, what is missing, fetch it, prove it, make it a slot.

Each step can be run again from the start at any time: what is on disk already is proved by its hash and kept.
"""

import shutil
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_agent.adapters.board import free_bytes
from edge_agent.adapters.download import Cancelled, Downloader, file_digest
from edge_agent.adapters.slots import SlotStore
from edge_agent.adapters.trust import SignedBlob, TrustHelper
from edge_agent.core.events import Slots
from edge_contract.errors import BundleError, ManifestError, SlotError
from edge_contract.jobs import JobDocument
from edge_contract.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, BundleFile, Manifest

__all__ = ["Installer", "needed_files"]

MARGIN_BYTES: Final = 16_000_000
"""Stays free on the disk beside what an install needs, for journal, outbox and the system."""
PROGRESS_S: Final = 5.0


class Installer:
    """Carries out the steps of one order after the other, in one worker thread.

    Args:
        slots: The slots on disk.
        trust: Asks what is signed.
        device_url: Where blobs are.
        runtime: Our runtime: artefacts for others are not fetched.
        open_context: Gives TLS with our certificate, anew for each step: it may have been renewed.
        limit_bps: Bandwidth limit, 0 for none.
    """

    def __init__(
        self,
        slots: SlotStore,
        trust: TrustHelper,
        device_url: str,
        runtime: str,
        open_context: Callable[[], ssl.SSLContext | None],
        *,
        limit_bps: int = 0,
    ) -> None:
        self._slots, self._trust, self._device_url, self._runtime = slots, trust, device_url, runtime
        self._open_context, self._limit_bps = open_context, limit_bps
        self._signed: dict[str, dict[str, SignedBlob]] = {}

    def preflight(self, job: JobDocument, wait: Callable[[float], bool]) -> None:
        """Is it signed, does it fit this device, is there room? Leaves the manifest on disk.

        Raises:
            SignatureError, DownloadError, ManifestError, BundleError, SlotError: Why not.
        """
        manifest = self._manifest(job, self._facts(job, fresh=True), wait)
        if manifest.model != job.model:
            raise BundleError(f"the bundle is of model '{manifest.model}', the order says '{job.model}'")
        missing = sum(f.size for f in needed_files(manifest, self._runtime) if not self._have(job, f))
        free = free_bytes(self._slots.root)
        if missing and free < missing * 1.1 + MARGIN_BYTES:
            fix = "free some space"
            raise SlotError(f"{missing} bytes and a margin are needed, {free} are free", where="disk", fix=fix)

    def download(self, job: JobDocument, wait: Callable[[float], bool], progress: Callable[[int, int], None]) -> None:
        """Bring every file that our runtime needs, by copy from another slot or by HTTPS.

        Raises:
            DownloadError: Trying again may help.
            SignatureError, BundleError, SlotError: It does not.
            Cancelled: The order was cancelled.
        """
        facts = self._facts(job)
        manifest = self._manifest(job, facts, wait)
        files = needed_files(manifest, self._runtime)
        total, done, told = sum(f.size for f in files), 0, 0.0
        source = self._downloader(wait)
        for entry in files:
            _check_signed(entry, facts)

            def tell(safe: int, before: int = done) -> None:
                nonlocal told
                if time.monotonic() - told >= PROGRESS_S:
                    told = time.monotonic()
                    progress(before + safe, total)

            if not self._have(job, entry) and not self._copy_from_slots(job, entry):
                path = self._slots.partial(job.model, job.bundle) / entry.path
                path.parent.mkdir(parents=True, exist_ok=True)
                source.fetch(entry.sha256, entry.size, path, tell)
            done += entry.size
            if wait(0.0):
                raise Cancelled

    def verify(self, job: JobDocument) -> Slots:
        """Hash every file once more from the disk, then make the folder a slot.

        Raises:
            BundleError: A file is missing or changed; the download is thrown away.
            ManifestError, SlotError: Likewise.
        """
        folder = self._place(job)
        try:
            manifest = Manifest.from_bytes((folder / MANIFEST_NAME).read_bytes())
            if manifest.bundle_id != job.bundle:
                raise BundleError("the manifest is of another bundle", where=str(folder))
            for entry in needed_files(manifest, self._runtime):
                if not _is(folder / entry.path, entry):
                    raise BundleError(f"file '{entry.path}' is missing or changed", where=str(folder))
        except OSError as error:
            raise BundleError(f"cannot be read: {error}", where=str(folder)) from error
        except (BundleError, ManifestError):
            if folder.name.endswith(".partial"):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        self._slots.publish(job.model, job.bundle)
        return self._slots.read(job.model)

    def commit(self, job: JobDocument) -> Slots:
        """Pin the first model that proved itself as the factory model; raises SlotError."""
        self._signed.pop(job.bundle, None)
        return self._slots.pin_factory(job.model)

    def _facts(self, job: JobDocument, *, fresh: bool = False) -> dict[str, SignedBlob]:
        """Return what is signed about the bundle and its files; asked again after a restart."""
        if fresh or job.bundle not in self._signed:
            self._signed = {job.bundle: self._trust.refresh(self._device_url, [job.bundle])}
        return self._signed[job.bundle]

    def _downloader(self, wait: Callable[[float], bool]) -> Downloader:
        return Downloader(self._device_url, self._open_context(), self._limit_bps, wait)

    def _place(self, job: JobDocument) -> Path:
        final = self._slots.folder(job.model, job.bundle)
        return final if final.is_dir() else self._slots.partial(job.model, job.bundle)

    def _manifest(self, job: JobDocument, facts: dict[str, SignedBlob], wait: Callable[[float], bool]) -> Manifest:
        signed = facts.get(job.bundle)
        if signed is None or not 0 < signed.length <= MAX_MANIFEST_BYTES:
            raise BundleError(f"bundle {job.bundle[:16]} is not among the signed targets", where=self._device_url)
        path = self._place(job) / MANIFEST_NAME
        if not path.is_file() or file_digest(path) != job.bundle:
            if not path.parent.name.endswith(".partial"):
                raise SlotError(
                    "its manifest is damaged", where=f"slot {job.bundle[:16]}", fix="install another bundle"
                )
            self._downloader(wait).fetch(job.bundle, signed.length, path)
        return Manifest.from_bytes(path.read_bytes())

    def _have(self, job: JobDocument, entry: BundleFile) -> bool:
        return _is(self._place(job) / entry.path, entry)

    def _copy_from_slots(self, job: JobDocument, entry: BundleFile) -> bool:
        """Take a file from a slot that holds the same bytes; True if it was there."""
        slots = self._slots.read(job.model)
        for bundle in {slots.active, slots.standby, slots.factory} - {"", job.bundle}:
            folder = self._slots.folder(job.model, bundle)
            try:
                other = Manifest.from_bytes((folder / MANIFEST_NAME).read_bytes())
            except (OSError, ManifestError):
                continue
            twin = next((f for f in other.files if (f.sha256, f.size) == (entry.sha256, entry.size)), None)
            if twin is not None and _is(folder / twin.path, twin):
                target = self._slots.partial(job.model, job.bundle) / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / twin.path, target)
                return True
        return False


def needed_files(manifest: Manifest, runtime: str) -> tuple[BundleFile, ...]:
    """Return the files of a bundle that a device with one runtime needs: not the artefacts of others.

    Raises:
        ManifestError: No artefact for this runtime.
    """
    ours = manifest.artefact_for(runtime).path
    foreign = {a.path for a in manifest.artefacts if a.path != ours}
    foreign |= {profile for path, profile in manifest.profiles.items() if path in foreign}
    foreign -= {ours, manifest.golden, manifest.profiles.get(ours, "")}
    return tuple(entry for entry in manifest.files if entry.path not in foreign)


def _check_signed(entry: BundleFile, facts: dict[str, SignedBlob]) -> None:
    signed = facts.get(entry.sha256)
    if signed is None or signed.length != entry.size:
        raise BundleError(f"file '{entry.path}' is not among the signed targets", fix="sign the bundle again")


def _is(path: Path, entry: BundleFile) -> bool:
    """True if the bytes at a path are those of a file entry; the size is looked at first."""
    try:
        return path.stat().st_size == entry.size and file_digest(path) == entry.sha256
    except OSError:
        return False
