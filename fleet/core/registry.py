# SPDX-License-Identifier: Apache-2.0
"""Which model versions the fleet may run: a bundle is admitted whole and authorised, or not at all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge_contract import canonical
from edge_contract.errors import RegistryError
from edge_contract.manifest import BundleFile
from edge_contract.software import AnyManifest, SoftwareManifest, read
from edge_contract.topics import is_name

__all__ = ["ModelVersion", "admit"]


@dataclass(frozen=True)
class ModelVersion:
    """One registered bundle; its id says which bytes, for ever."""

    model: str
    version: str
    bundle: str
    manifest: AnyManifest
    registered_at: float

    def to_json(self) -> dict[str, Any]:
        manifest = self.manifest
        return {
            "model": self.model,
            "version": self.version,
            "bundle": self.bundle,
            "registered_at": self.registered_at,
            "task": manifest.task,
            "labels": list(manifest.labels),
            "size": sum(entry.size for entry in manifest.files),
            "files": [entry.to_json() for entry in manifest.files],
            "artefacts": [
                {
                    "path": artefact.path,
                    "size": manifest.file(artefact.path).size,
                    "target": artefact.target,
                    "runtimes": list(artefact.runtimes),
                    "precision": artefact.precision,
                    "plan_digest": artefact.plan_digest,
                }
                for artefact in manifest.artefacts
            ],
            "profiles": dict(manifest.profiles),
            "lineage": manifest.lineage,
        }


def _check_blob(
    entry: BundleFile, where: str, *, held: Callable[[str], int | None], authorises: Callable[[str], bool]
) -> None:
    have, name = held(entry.sha256), entry.path
    if have is None:
        raise RegistryError(f"file {name!r} is missing", where=where, fix=f"upload blob {entry.sha256} first")
    if have != entry.size:
        raise RegistryError(f"file {name!r} has {have} bytes, the manifest says {entry.size}", where=where)
    if not authorises(entry.sha256):
        fix = "sign the bundle with the fleet's targets key and send that targets.json"
        raise RegistryError(f"file {name!r} is not in the signed targets", where=where, fix=fix)


def admit(
    bundle: str,
    manifest_bytes: bytes,
    *,
    held: Callable[[str], int | None],
    authorises: Callable[[str], bool],
    known: Callable[[str, str], str | None],
    now: float,
) -> ModelVersion:
    """Return the model version of a bundle that is complete and authorised.

    Args:
        bundle: Its id, the SHA-256 of the manifest's bytes.
        manifest_bytes: Canonical bytes of ``manifest.json``.
        held: Size in bytes of a blob that the server holds, None if it does not.
        authorises: Whether the signed TUF targets name a SHA-256.
        known: (model, version) → bundle id that already has this name, or None.
        now: Seconds since 1970.

    Raises:
        RegistryError: A file is missing, of another size or not signed; the version's name is taken.
        ManifestError: The manifest is malformed.
    """
    if canonical.digest(manifest_bytes) != bundle:
        raise RegistryError("the manifest's bytes are not the bundle's", where=f"bundle {bundle[:12]}")
    manifest = read(manifest_bytes)
    if isinstance(manifest, SoftwareManifest):
        manifest.check_protocol()
    where = f"bundle {manifest.model} {manifest.version} ({bundle[:12]})"
    if not is_name(manifest.model):
        raise RegistryError(f"{manifest.model!r} is not a model name", where=where)
    for entry in (BundleFile("manifest.json", len(manifest_bytes), bundle), *manifest.files):
        _check_blob(entry, where, held=held, authorises=authorises)
    other = known(manifest.model, manifest.version)
    if other not in (None, bundle):
        fix = "a version is immutable: give the new one another version"
        raise RegistryError(f"version {manifest.version} is already bundle {str(other)[:12]}", where=where, fix=fix)
    return ModelVersion(manifest.model, manifest.version, bundle, manifest, now)
