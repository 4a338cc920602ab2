# SPDX-License-Identifier: Apache-2.0
"""The slow steps of an order for the agent's own software: those of a model's, then an environment is made.

Loaded when the first such order comes: the control process is small.
"""

import os
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from edge_agent.adapters.download import Throttle
from edge_agent.adapters.guard import own_bytes
from edge_agent.adapters.install import MARGIN_BYTES, MARGIN_INODES, Installer
from edge_agent.adapters.trust import TrustHelper
from edge_agent.core.events import Slots
from edge_agent.software import launch
from edge_agent.software.store import ReleaseStore
from edge_agent.storage_config import Limits
from edge_contract.errors import SlotError
from edge_contract.jobs import JobDocument
from edge_contract.manifest import BundleFile
from edge_contract.software import SoftwareManifest, here

__all__ = ["ReleaseInstaller", "room"]

_GROWTH: Final = 1.6
"""An environment over the bytes of its wheels' files: pip adds bytecode; measured with LiteRT: 1.27."""
_FILES: Final = 2
"""The same for files and folders; measured 1.93."""
_MB: Final = 1_000_000


class ReleaseInstaller(Installer):
    """Carries out the steps of orders for the agent's own software.

    Args:
        store, trust, device_url, open_context, throttle, turn: As ``Installer``.
        data: The data folder.
        python: The launcher's interpreter.
        limits: What the disk has to keep to.
    """

    def __init__(
        self,
        store: ReleaseStore,
        trust: TrustHelper,
        device_url: str,
        open_context: Callable[[], ssl.SSLContext | None],
        *,
        data: Path,
        python: str,
        limits: Limits,
        throttle: Throttle | None = None,
        turn: AbstractContextManager[Any] | None = None,
    ) -> None:
        super().__init__(store, trust, device_url, "", open_context, throttle=throttle, turn=turn)
        self._data, self._python, self._limits = data, python, limits
        self._helper = trust

    def parse(self, data: bytes) -> SoftwareManifest:
        """Return the release's manifest; raises ManifestError."""
        return SoftwareManifest.from_bytes(data)

    def needed(self, manifest: Any) -> tuple[BundleFile, ...]:
        """Return the wheels for this device; raises ManifestError where there are none."""
        found: tuple[BundleFile, ...] = manifest.wheels_for(*here())
        return found

    def preflight(self, job: JobDocument, wait: Callable[[float], bool]) -> None:
        """As for a model; also whether the release can talk to us, and whether there is room for the environment.

        What the launcher held against this release before is forgotten: the server asks anew.

        Raises:
            SignatureError, DownloadError, ManifestError, BundleError, SlotError: Why not.
        """
        super().preflight(job, wait)
        manifest = self.parse((self._place(job) / "manifest.json").read_bytes())
        manifest.check_protocol()
        wheels = self.needed(manifest)
        if not launch.is_whole(self._data, job.bundle):
            missing = sum(f.size for f in wheels if not self._have(job, f))
            unpacked = [(_number(f, "unpacked", f.size * 4), _number(f, "members", 200)) for f in wheels]
            grown = int(sum(size for size, _ in unpacked) * _GROWTH)
            room(self._data, self._limits, missing + grown, sum(n for _, n in unpacked) * _FILES)
        self._note(launch.read(self._data).forgiven(job.bundle))

    def verify(self, job: JobDocument) -> tuple[Slots, int]:
        """Hash every wheel, make the environment in the helper, and let the new release examine this device.

        Raises:
            BundleError, ManifestError, SlotError: Why not; the wheels stay, so that nothing is fetched twice.
        """
        manifest = self.proved(job)
        folder = self._slots.folder(job.model, job.bundle)
        wheels = [
            {
                "name": str(entry.unrecognized.get("name", "")),
                "version": str(entry.unrecognized.get("version", "")),
                "sha256": entry.sha256,
                "path": str(folder / entry.path),
            }
            for entry in self.needed(manifest)
        ]
        self._helper.build(job.bundle, manifest.version, self._python, wheels)
        return self._slots.read(job.model), 0

    def commit(self, job: JobDocument) -> Slots:
        """Remember that the release passed its trial; raises SlotError."""
        self._signed.pop(job.bundle, None)
        self._note(launch.read(self._data).committed(job.bundle))
        return self._slots.read(job.model)

    def _note(self, record: launch.Launch) -> None:
        if record == launch.read(self._data):
            return
        try:
            launch.write(self._data, record)
        except OSError as error:
            raise SlotError(f"cannot be written: {error}", where="launch.json", fix="free some space") from error


def room(data: Path, limits: Limits, size: int, files: int) -> None:
    """Raise SlotError unless so many more bytes and files keep the disk within its three limits.

    Args:
        data: The data folder.
        limits: ``[storage]`` of agent.toml.
        size, files: What is about to be written.
    """
    disk = os.statvfs(data)
    free, inodes = disk.f_bavail * disk.f_frsize, disk.f_favail if disk.f_files else None
    least = max(limits.least_free_mb * _MB, MARGIN_BYTES)
    if free < size + least:
        what = f"{size // _MB} MB are needed and {least // _MB} MB have to stay free, {free // _MB} MB are free"
        raise SlotError(what, where="disk", fix="free some space")
    if inodes is not None and inodes < files + max(limits.least_free_inodes, MARGIN_INODES):
        what = f"{files} files and a margin of {limits.least_free_inodes} are needed, {inodes} inodes are free"
        raise SlotError(what, where="disk", fix="delete some files")
    own = own_bytes(data) if limits.most_own_mb else 0
    if limits.most_own_mb and own + size > limits.most_own_mb * _MB:
        what = f"{size // _MB} MB are needed, the data folder takes {own // _MB} of {limits.most_own_mb} MB"
        raise SlotError(what, where="[storage] most_own_mb", fix="raise it, or free some space")


def _number(entry: BundleFile, name: str, default: int) -> int:
    found = entry.unrecognized.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else default
