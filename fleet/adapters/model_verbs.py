# SPDX-License-Identifier: Apache-2.0
"""What is asked about models: the trust root, blobs, and registering a signed bundle."""

from collections.abc import Callable, Iterable

from edge_contract import canonical
from edge_contract.errors import RegistryError
from edge_contract.manifest import Manifest
from fleet.adapters import tables
from fleet.adapters.database import Connection
from fleet.adapters.desk import Desk
from fleet.core.registry import ModelVersion, admit

__all__ = ["ModelVerbs"]


class ModelVerbs:
    """Verbs on the registry; each is one transaction with its audit entry."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def install_root(self, data: bytes, actor: str) -> None:
        """Take a TUF root from the workstation; raises SignatureError when it is not acceptable."""
        self._desk.trust.tuf.install_root(data, now=self._desk.clock())
        self._desk.store.write(lambda db: self._desk.audit(db, actor, "trust.root", "root.json", {"bytes": len(data)}))

    def next_online_key(self, actor: str, *, anew: bool = False) -> bytes:
        """Return the public half of the next online key, made now or waiting already."""
        public = self._desk.trust.tuf.new_online_key(anew=anew)
        digest = canonical.digest(public)
        self._desk.store.write(
            lambda db: self._desk.audit(db, actor, "trust.next_key", "online.pub", {"sha256": digest})
        )
        return public

    def put_blob(self, sha256: str, chunks: Iterable[bytes], actor: str) -> int:
        """Store a file of a bundle and return its size in bytes."""
        if self._desk.blobs.path(sha256) is None:
            size = self._desk.blobs.put(sha256, chunks)
            self._desk.store.write(lambda db: self._desk.audit(db, actor, "blob.put", sha256, {"bytes": size}))
        return self._desk.blobs.size(sha256) or 0

    def register(self, bundle: str, targets: bytes, actor: str) -> ModelVersion:
        """Publish new targets and register the bundle that they authorise.

        Raises:
            RegistryError: A file is missing or not signed, or the version's name is taken.
            SignatureError: The targets are not signed by the root's targets key, or are not newer.
        """
        if self._desk.blobs.path(bundle) is None:
            fix = f"upload blob {bundle} first"
            raise RegistryError("manifest.json is missing", where=f"bundle {bundle[:12]}", fix=fix)
        now, manifest = self._desk.clock(), self._desk.blobs.read(bundle)
        version = self._admitted(bundle, manifest, targets, self._desk.blobs.size, now)
        self._desk.trust.tuf.publish_targets(targets, now=now)

        def job(db: Connection) -> ModelVersion:
            if (present := tables.model(db, bundle)) is not None:
                return present
            tables.put_model(db, version)
            self._desk.audit(db, actor, "model.add", bundle, {"model": version.model, "version": version.version})
            return version

        registered = self._desk.store.write(job)
        self._desk.on_release()
        return registered

    def check(self, manifest: bytes, targets: bytes) -> ModelVersion:
        """Return what would be registered if every file of the manifest were held; nothing is changed.

        Raises:
            RegistryError, SignatureError, ManifestError: As ``register``.
        """
        sizes = {entry.sha256: entry.size for entry in Manifest.from_bytes(manifest).files}
        bundle = canonical.digest(manifest)
        sizes[bundle] = len(manifest)
        return self._admitted(bundle, manifest, targets, sizes.get, self._desk.clock())

    def _admitted(
        self, bundle: str, manifest: bytes, targets: bytes, held: Callable[[str], int | None], now: float
    ) -> ModelVersion:
        names = {(v.model, v.version): v.bundle for v in self._desk.store.read(tables.models)}
        signed = self._desk.trust.tuf.check_targets(targets, now=now).signed.targets
        return admit(
            bundle,
            manifest,
            held=held,
            authorises=lambda sha256: f"blobs/{sha256}" in signed,
            known=lambda model, name: names.get((model, name)),
            now=now,
        )
