# SPDX-License-Identifier: Apache-2.0
"""What is asked about models: the trust root, blobs, and registering a signed bundle."""

from collections.abc import Callable, Iterable

from edge_contract import canonical
from edge_contract.delegations import name_of
from edge_contract.errors import ContractError, RegistryError
from edge_contract.software import read
from fleet.adapters import channels, tables
from fleet.adapters.database import Connection
from fleet.adapters.desk import Desk
from fleet.adapters.promotion_verbs import PromotionVerbs
from fleet.core.registry import ModelVersion, admit

__all__ = ["ModelVerbs"]


class ModelVerbs:
    """Verbs on the registry; each is one transaction with its audit entry.

    Args:
        desk: Database, blobs, trust, clock.
        promotion: What the rules do with a new version.
    """

    def __init__(self, desk: Desk, promotion: PromotionVerbs) -> None:
        self._desk, self._promotion = desk, promotion

    def install_root(self, data: bytes, actor: str) -> None:
        """Take a TUF root from the workstation; raises SignatureError when it is not acceptable."""
        self._desk.trust.tuf.install_root(data, now=self._desk.clock())
        self._desk.store.write(lambda db: self._desk.audit(db, actor, "trust.root", "root.json", {"bytes": len(data)}))

    def publish_targets(self, data: bytes, actor: str) -> dict[str, object]:
        """Show devices new targets, the fleet's or a team's, without a bundle: after a delegation or a withdrawal.

        Raises:
            SignatureError: As ``TufRepository.publish_targets``.
        """
        self._desk.trust.tuf.publish_targets(data, now=self._desk.clock())
        detail = {"sha256": canonical.digest(data), "bytes": len(data)}
        self._desk.store.write(lambda db: self._desk.audit(db, actor, "trust.targets", "targets.json", detail))
        return self._desk.trust.tuf.shown()

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
        if not self._touch(sha256):
            size = self._desk.blobs.put(sha256, chunks)
            self._desk.store.write(lambda db: self._desk.audit(db, actor, "blob.put", sha256, {"bytes": size}))
        return self._desk.blobs.size(sha256) or 0

    def register(self, bundle: str, targets: bytes, actor: str) -> ModelVersion:
        """Publish new targets and register the bundle that they authorise.

        Raises:
            RegistryError: A file is missing or not signed, or the version's name is taken.
            SignatureError: The targets are not signed by the root's targets key, or are not newer.
        """
        with self._promotion.releases.files.using():  # no sweep between the look at the files and the row
            registered = self._registered(bundle, targets, actor)
        self._desk.on_release()
        self._promotion.step()
        return registered

    def _registered(self, bundle: str, targets: bytes, actor: str) -> ModelVersion:
        if self._desk.blobs.size(bundle) is None:
            fix = f"upload blob {bundle} first"
            raise RegistryError("manifest.json is missing", where=f"bundle {bundle[:12]}", fix=fix)
        now, manifest = self._desk.clock(), self._desk.blobs.read(bundle)
        version = self._admitted(bundle, manifest, targets, self._desk.blobs.size, now)
        self._desk.trust.tuf.publish_targets(targets, now=now)

        def job(db: Connection) -> ModelVersion:
            if (present := tables.model(db, bundle)) is not None:
                return present
            tables.put_model(db, version)
            channels.note_version(db, version.bundle, actor)
            self._desk.audit(db, actor, "model.add", bundle, {"model": version.model, "version": version.version})
            return version

        return self._desk.store.write(job)

    def check(self, manifest: bytes, targets: bytes) -> ModelVersion:
        """Return what would be registered if every file of the manifest were held; files that are held stay a while.

        Raises:
            RegistryError, SignatureError, ManifestError: As ``register``.
        """
        sizes = {entry.sha256: entry.size for entry in read(manifest).files}
        bundle = canonical.digest(manifest)
        sizes[bundle] = len(manifest)
        version = self._admitted(bundle, manifest, targets, sizes.get, self._desk.clock())
        with self._promotion.releases.files.using():  # what is found here is not sent: no sweep may take it before
            for sha256 in sizes:
                self._desk.blobs.touch(sha256)
        return version

    def _touch(self, sha256: str) -> bool:
        with self._promotion.releases.files.using():
            return self._desk.blobs.touch(sha256)

    def _admitted(
        self, bundle: str, manifest: bytes, targets: bytes, held: Callable[[str], int | None], now: float
    ) -> ModelVersion:
        names = {(v.model, v.version): v.bundle for v in self._desk.store.read(tables.models)}
        signed = self._desk.trust.tuf.check_targets(targets, now=now).signed.targets
        own = _model_of(manifest)  # a team's signature is good for the models that it names, and for no other
        return admit(
            bundle,
            manifest,
            held=held,
            authorises=lambda sha256: f"blobs/{sha256}" in signed or name_of(own, sha256) in signed,
            known=lambda model, name: names.get((model, name)),
            now=now,
        )


def _model_of(manifest: bytes) -> str:
    """The model's name in a manifest that is read with care only later."""
    try:
        document = canonical.loads(manifest)
    except ContractError:
        return ""
    found = document.get("model") if isinstance(document, dict) else ""
    return found if isinstance(found, str) else ""
