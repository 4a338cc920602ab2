# SPDX-License-Identifier: Apache-2.0
"""Read a bundle folder: its manifest, and any file of it only after its hash was compared."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract import canonical
from edge_contract.errors import BundleError
from edge_contract.manifest import MANIFEST_NAME, Manifest
from edge_contract.profile import ReferenceProfile

__all__ = ["Contents"]


@dataclass(frozen=True)
class Contents:
    """A bundle folder whose manifest was read. The control process checks signatures; this finds rot and mix-ups.

    Attributes:
        folder: Where it lies.
        manifest: What it says of itself.
        bundle: Its id, the SHA-256 of the manifest's bytes.
    """

    folder: Path
    manifest: Manifest
    bundle: str

    @classmethod
    def open(cls, folder: Path) -> "Contents":
        """Read a folder's manifest.

        Raises:
            BundleError: There is no manifest.
            ManifestError: It is malformed.
        """
        try:
            data = (folder / MANIFEST_NAME).read_bytes()
        except OSError as error:
            what = f"no readable {MANIFEST_NAME} ({error.strerror})"
            raise BundleError(what, where=str(folder), fix="give a bundle's folder") from error
        return cls(folder, Manifest.from_bytes(data), canonical.digest(data))

    def path(self, name: str) -> Path:
        """Return the path of a file after its size and SHA-256 were compared.

        Raises:
            BundleError: It is missing or changed.
            ManifestError: The manifest does not list it.
        """
        entry, path = self.manifest.file(name), self.folder / name
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BundleError(f"file cannot be read ({error.strerror})", where=str(path)) from error
        if (size, found) != (entry.size, entry.sha256):
            what = f"file changed: {size} bytes with SHA-256 {found[:12]}…, not {entry.size} with {entry.sha256[:12]}…"
            raise BundleError(what, where=str(path), fix="download the bundle again")
        return path

    def read(self, name: str) -> bytes:
        """Return a file's checked bytes; raises as ``path`` does."""
        return self.path(name).read_bytes()

    def array(self, name: str) -> NDArray[Any]:
        """Return a checked .npy file; raises BundleError when it holds no plain array, else as ``path`` does."""
        try:
            array: NDArray[Any] = np.load(io.BytesIO(self.read(name)), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise BundleError(f"not an .npy array: {error}", where=str(self.folder / name)) from error
        return array

    def profile(self, artefact: str) -> ReferenceProfile | None:
        """Return the reference profile of an artefact path, None where the bundle has none.

        Raises:
            ProfileError: It is malformed, or of other classes than the manifest's.
        """
        name = self.manifest.profiles.get(artefact)
        return None if name is None else ReferenceProfile.from_bytes(self.read(name))
