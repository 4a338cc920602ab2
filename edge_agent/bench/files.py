# SPDX-License-Identifier: Apache-2.0
"""Bring what a benchmark measures: a slot that is here, a signed bundle, or plain files; and say it to the harness."""

import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from edge_agent.adapters.board import free_bytes
from edge_agent.adapters.download import Downloader, Throttle, file_digest
from edge_agent.adapters.slots import SlotStore
from edge_agent.adapters.trust import SignedBlob, TrustHelper
from edge_agent.lanes_config import LaneConfig
from edge_contract.bench_job import MAX_FILE_BYTES, OF_THE_DEVICE, BenchJob, file_for
from edge_contract.canonical import as_float
from edge_contract.errors import BundleError, ContractError, SlotError
from edge_contract.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest

__all__ = ["Goods"]

_SAMPLES: Final = (".npz", ".npy")
_FORMATS: Final = {".tflite": "tflite", ".onnx": "onnx"}


@dataclass(frozen=True)
class Goods:
    """Brings files for benchmarks.

    Attributes:
        slots: Models that are here already.
        trust: Asks what is signed.
        device_url: Where blobs are.
        open_context: Gives TLS with our certificate.
        throttle: The pace of all downloads.
        turn: Held while the trust helper refreshes.
        least_free: Bytes that stay free on the disk.
    """

    slots: SlotStore
    trust: TrustHelper
    device_url: str
    open_context: Callable[[], ssl.SSLContext | None]
    throttle: Throttle
    turn: AbstractContextManager[Any]
    least_free: int

    def bring(self, job: BenchJob, folder: Path, own: LaneConfig, wait: Callable[[float], bool]) -> dict[str, Any]:
        """Bring everything; return the plan with paths, hashes, runtime and threads of this device.

        Args:
            job: The order.
            folder: Where files go; what is there from an attempt before is resumed.
            own: The lane whose runtime measures.
            wait: Sleeps so many seconds; True if the order was withdrawn meanwhile.

        Raises:
            DownloadError: It may pass.
            SignatureError, BundleError, ManifestError, SlotError: It does not.
            Cancelled: The order was withdrawn.
        """
        found = self._bundle(job, folder, own, wait) if job.is_registered else self._plain(job, folder, own, wait)
        return {**_numbers(job.plan), **found, **_of_lane(job.plan, own)}

    def _bundle(self, job: BenchJob, folder: Path, own: LaneConfig, wait: Callable[[float], bool]) -> dict[str, Any]:
        slot = self.slots.folder(job.model, job.bundle)
        if slot.is_dir():
            manifest = Manifest.from_bytes((slot / MANIFEST_NAME).read_bytes())
            return _words(manifest, slot, own.runtime)
        with self.turn:
            signed = self.trust.refresh(self.device_url, [job.bundle], model=job.model)
        head = signed.get(job.bundle)
        if head is None or not 0 < head.length <= MAX_MANIFEST_BYTES:
            raise BundleError(f"bundle {job.bundle[:16]} is not among the signed targets", where=self.device_url)
        folder.mkdir(parents=True, exist_ok=True)
        source = Downloader(self.device_url, self.open_context(), self.throttle, wait)
        self._fetch(source, job.bundle, head.length, folder / MANIFEST_NAME)
        manifest = Manifest.from_bytes((folder / MANIFEST_NAME).read_bytes())
        self._files_of(manifest, job, folder, own, source, signed)
        return _words(manifest, folder, own.runtime)

    def _files_of(  # noqa: PLR0917 - one download
        self,
        manifest: Manifest,
        job: BenchJob,
        folder: Path,
        own: LaneConfig,
        source: Downloader,
        signed: Mapping[str, SignedBlob],
    ) -> None:
        from edge_agent.adapters.install import needed_files

        needed = needed_files(manifest, own.runtime)
        self._check_room(job, sum(entry.size for entry in needed), folder)
        for entry in needed:
            blob = signed.get(entry.sha256)
            if blob is None or blob.length != entry.size:
                raise BundleError(f"file '{entry.path}' is not among the signed targets", fix="sign the bundle again")
            path = folder / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fetch(source, entry.sha256, entry.size, path)

    def _plain(self, job: BenchJob, folder: Path, own: LaneConfig, wait: Callable[[float], bool]) -> dict[str, Any]:
        model = file_for(job.files, own.runtime)
        if model is None:
            names = ", ".join(one.name for one in job.files)
            raise BundleError(f"no file for runtime '{own.runtime}' among {names}", where=f"benchmark {job.id}")
        samples = next((one for one in job.files if PurePosixPath(one.name).suffix in _SAMPLES), None)
        wanted = [one for one in (model, samples) if one is not None]
        folder.mkdir(parents=True, exist_ok=True)
        self._check_room(job, sum(one.size for one in wanted), folder)
        base = f"{self.device_url}/benchmarks/{job.id}"
        source = Downloader(base, self.open_context(), self.throttle, wait)
        for one in wanted:
            self._fetch(source, one.sha256, one.size, folder / one.name)
        found = {
            "artefact": str(folder / model.name),
            "sha256": model.sha256,
            "format": _FORMATS[PurePosixPath(model.name).suffix],
            "input": "real" if samples else "random",
        }
        return {**found, "data": str(folder / samples.name)} if samples else found

    def _fetch(self, source: Downloader, sha256: str, size: int, path: Path) -> None:
        if not (path.is_file() and path.stat().st_size == size and file_digest(path) == sha256):
            source.fetch(sha256, size, path)

    def _check_room(self, job: BenchJob, size: int, folder: Path) -> None:
        where = f"benchmark {job.id}"
        if size + MAX_FILE_BYTES > job.max_bytes:
            what = f"{size} bytes of files and room for a result are more than the order's {job.max_bytes}"
            raise SlotError(what, where=where, fix="start it with more megabytes")
        if free_bytes(folder) - size - MAX_FILE_BYTES < self.least_free:
            raise SlotError(f"{size} bytes would not leave {self.least_free} free", where=where, fix="free some space")


def _words(manifest: Manifest, folder: Path, runtime: str) -> dict[str, Any]:
    artefact = manifest.artefact_for(runtime)
    return {
        "artefact": str(folder / artefact.path),
        "sha256": manifest.file(artefact.path).sha256,
        "format": artefact.format,
        "bundle": str(folder),
        "bundle_digest": manifest.bundle_id,
    }


def _of_lane(plan: Mapping[str, Any], own: LaneConfig) -> dict[str, Any]:
    """Return what the lane decides; threads only where the plan leaves them open."""
    return {"runtime": own.runtime, "delegate": own.delegate, "threads": plan.get("threads", own.threads)}


def _numbers(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan without what this device decides, and whose numbers are numbers again.

    Canonical JSON writes a float as its hexadecimal text.
    """
    found = {name: value for name, value in plan.items() if name not in OF_THE_DEVICE}
    for name, value in tuple(found.items()):
        if isinstance(value, str) and value.lstrip("-").startswith("0x"):
            try:
                found[name] = as_float(value)
            except ContractError:
                continue
    return found
