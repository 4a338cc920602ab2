# SPDX-License-Identifier: Apache-2.0
"""The slow steps of an order: what is signed, what is missing, fetch it, prove it, make it a slot.

Each step can be run again from the start at any time: what is on disk already is proved by its hash and kept.
"""

import shutil
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_agent.adapters.board import free_bytes, free_inodes
from edge_agent.adapters.download import Cancelled, Downloader, Throttle, file_digest
from edge_agent.adapters.slots import SlotStore
from edge_agent.adapters.spare import artefacts_for
from edge_agent.adapters.trust import SignedBlob, TrustHelper
from edge_agent.core.events import Slots
from edge_contract.errors import BundleError, ManifestError, SlotError
from edge_contract.jobs import JobDocument
from edge_contract.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, BundleFile, Manifest

if TYPE_CHECKING:
    from edge_agent.adapters.patches import Fetcher

__all__ = ["Installer", "memory_kb", "needed_files"]

MARGIN_BYTES: Final = 16_000_000
"""Stays free on the disk beside what an install needs, for journal, outbox and the system."""
MARGIN_INODES: Final = 200
"""Stay free likewise; every file and folder takes one."""
PROGRESS_S: Final = 5.0
_MODEL_FACTOR: Final = 4
_MODEL_KB: Final = 4_000
"""A second model of a running process took at most 3.6 times its file, LiteRT and ONNX Runtime, int8 and float32,
0.04 to 18 MB; small ones up to 12 times, but never a megabyte more than that."""


class Installer:
    """Carries out the steps of one order after the other, in one worker thread.

    Args:
        slots: The slots on disk.
        trust: Asks what is signed.
        device_url: Where blobs are.
        runtime: Our runtime: artefacts for others are not fetched.
        open_context: Gives TLS with our certificate, anew for each step: it may have been renewed.
        throttle: How fast bytes may come.
        turn: Held while the trust helper refreshes: one at a time writes the trusted metadata.
    """

    def __init__(
        self,
        slots: SlotStore,
        trust: TrustHelper,
        device_url: str,
        runtime: str,
        open_context: Callable[[], ssl.SSLContext | None],
        *,
        throttle: Throttle | None = None,
        turn: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._slots, self._trust, self._device_url, self._runtime = slots, trust, device_url, runtime
        self._open_context, self.throttle = open_context, throttle or Throttle()
        self._turn = turn or threading.Lock()
        self._signed: dict[str, dict[str, SignedBlob]] = {}

    def preflight(self, job: JobDocument, wait: Callable[[float], bool]) -> None:
        """Is it signed, does it fit this device, is there room? Leaves the manifest on disk.

        Raises:
            SignatureError, DownloadError, ManifestError, BundleError, SlotError: Why not.
        """
        manifest = self._manifest(job, self._facts(job, fresh=True), wait)
        if manifest.model != job.model:
            raise BundleError(f"the bundle is of model '{manifest.model}', the order says '{job.model}'")
        missing = [f for f in self.needed(manifest) if not self._have(job, f)]
        self._check_room(sum(f.size for f in missing), len(missing))

    @cached_property
    def fetcher(self) -> "Fetcher":
        """What brings files; loaded with the first order."""
        from edge_agent.adapters.patches import Fetcher

        return Fetcher(self._slots)

    def parse(self, data: bytes) -> Any:
        """Return the manifest in bytes; raises ManifestError."""
        return Manifest.from_bytes(data)

    def needed(self, manifest: Any) -> tuple[BundleFile, ...]:
        """Return the files that this device needs of a bundle; raises ManifestError."""
        return needed_files(manifest, self._runtime)

    def _check_room(self, size: int, files: int) -> None:
        """Raise SlotError unless so many more bytes and files leave the margins free."""
        free, inodes, fix = free_bytes(self._slots.root), free_inodes(self._slots.root), "free some space"
        if size and free < size * 1.1 + MARGIN_BYTES:
            raise SlotError(f"{size} bytes and a margin are needed, {free} are free", where="disk", fix=fix)
        if files and inodes is not None and inodes < files + MARGIN_INODES:
            what = f"{files} files and a margin of {MARGIN_INODES} are needed, {inodes} inodes are free"
            raise SlotError(what, where="disk", fix="delete some files")

    def download(self, job: JobDocument, wait: Callable[[float], bool], progress: Callable[[int, int], None]) -> None:
        """Bring every file that our runtime needs, by copy from another slot or by HTTPS.

        Raises:
            DownloadError: Trying again may help.
            SignatureError, BundleError, SlotError: It does not.
            Cancelled: The order was cancelled.
        """
        facts = self._facts(job)
        manifest = self._manifest(job, facts, wait)
        files = self.needed(manifest)
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
                self.fetcher.bring(job, entry, path, source, tell)
            done += entry.size
            if wait(0.0):
                raise Cancelled
        self._slots.settle(job.model, job.bundle)

    def verify(self, job: JobDocument) -> tuple[Slots, int]:
        """Hash every file once more from the disk, then make the folder a slot.

        Returns:
            The slots, and about how much memory the model will take, in kilobytes.

        Raises:
            BundleError: A file is missing or changed; the download is thrown away.
            ManifestError, SlotError: Likewise.
        """
        manifest = self.proved(job)
        return self._slots.read(job.model), memory_kb(manifest, self._runtime)

    def proved(self, job: JobDocument) -> Any:
        """Return the manifest of a download that was made a slot; raises as ``verify``."""
        folder = self._place(job)
        try:
            manifest = self.parse((folder / MANIFEST_NAME).read_bytes())
            if manifest.bundle_id != job.bundle:
                raise BundleError("the manifest is of another bundle", where=str(folder))
            for entry in self.needed(manifest):
                if not _is(folder / entry.path, entry):
                    raise BundleError(f"file '{entry.path}' is missing or changed", where=str(folder))
        except OSError as error:
            raise BundleError(f"cannot be read: {error}", where=str(folder)) from error
        except (BundleError, ManifestError):
            if folder.name.endswith(".partial"):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        self._slots.publish(job.model, job.bundle)
        return manifest

    def commit(self, job: JobDocument) -> Slots:
        """Pin the first model that proved itself as the factory model; raises SlotError."""
        self._signed.pop(job.bundle, None)
        return self._slots.pin_factory(job.model)

    def _facts(self, job: JobDocument, *, fresh: bool = False) -> dict[str, SignedBlob]:
        """Return what is signed about the bundle and its files; asked again after a restart."""
        if fresh or job.bundle not in self._signed:
            with self._turn:
                signed = self._trust.refresh(self._device_url, [job.bundle], model=job.model)
                self._signed = {job.bundle: signed}
        return self._signed[job.bundle]

    def _downloader(self, wait: Callable[[float], bool]) -> Downloader:
        return Downloader(self._device_url, self._open_context(), self.throttle, wait)

    def _place(self, job: JobDocument) -> Path:
        final = self._slots.folder(job.model, job.bundle)
        return final if final.is_dir() else self._slots.partial(job.model, job.bundle)

    def _manifest(self, job: JobDocument, facts: dict[str, SignedBlob], wait: Callable[[float], bool]) -> Any:
        signed = facts.get(job.bundle)
        if signed is None or not 0 < signed.length <= MAX_MANIFEST_BYTES:
            raise BundleError(f"bundle {job.bundle[:16]} is not among the signed targets", where=self._device_url)
        path = self._place(job) / MANIFEST_NAME
        if not path.is_file() or file_digest(path) != job.bundle:
            if not path.parent.name.endswith(".partial"):
                raise SlotError(
                    "its manifest is damaged", where=f"slot {job.bundle[:16]}", fix="install another bundle"
                )
            # A few kilobytes by which an order is judged; what is held on a metered link are the files behind it.
            small = Throttle(self.throttle.limit_bps)
            Downloader(self._device_url, self._open_context(), small, wait).fetch(job.bundle, signed.length, path)
        return self.parse(path.read_bytes())

    def _have(self, job: JobDocument, entry: BundleFile) -> bool:
        return _is(self._place(job) / entry.path, entry)

    def _copy_from_slots(self, job: JobDocument, entry: BundleFile) -> bool:
        """Take a file from a slot that holds the same bytes; True if it was there."""
        slots = self._slots.read(job.model)
        for bundle in {slots.active, slots.standby, slots.factory} - {"", job.bundle}:
            folder = self._slots.folder(job.model, bundle)
            try:
                other = self.parse((folder / MANIFEST_NAME).read_bytes())
            except (OSError, ManifestError):
                continue
            twin = next((f for f in other.files if (f.sha256, f.size) == (entry.sha256, entry.size)), None)
            if twin is not None and _is(folder / twin.path, twin):
                target = self._slots.partial(job.model, job.bundle) / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / twin.path, target)
                return True
        return False


def memory_kb(manifest: Manifest, runtime: str) -> int:
    """Return about how much memory a bundle takes in a running runner: the manifest's own figure, or by its file.

    Example:
        >>> 4_000 + 4 * 4_900  # an int8 EfficientNet-Lite0
        23600
    """
    artefact = manifest.artefact_for(runtime)
    told = artefact.unrecognized.get("memory_kb")
    if isinstance(told, int) and told > 0:
        return told
    return _MODEL_KB + _MODEL_FACTOR * manifest.file(artefact.path).size // 1000


def needed_files(manifest: Manifest, runtime: str) -> tuple[BundleFile, ...]:
    """Return the files of a bundle that a device with one runtime needs: not the artefacts of others.

    With an accelerator that is also the file by which the CPU stands in for it.

    Raises:
        ManifestError: No artefact for this runtime.
    """
    ours = {artefact.path for artefact in artefacts_for(manifest, runtime)}
    foreign = {a.path for a in manifest.artefacts if a.path not in ours}
    foreign |= {profile for path, profile in manifest.profiles.items() if path in foreign}
    foreign -= {*ours, manifest.golden, *(manifest.profiles.get(path, "") for path in ours)}
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
