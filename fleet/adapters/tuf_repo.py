# SPDX-License-Identifier: Apache-2.0
"""The online half of the TUF repository: takes root and targets from the workstation, signs snapshot and timestamp.

Folder: ``online.key`` (0600), ``online.pub``, ``timestamp.json``, ``N.snapshot.json``, ``N.targets.json``,
``N.root.json``. What counts is what ``timestamp.json`` leads to, and it is written last: a crash in between
leaves the old state. Reference: the TUF specification 1.0.34, §4 (roles) and §6.2 (consistent snapshots).

The server can say "this is the newest" but not "this is good": that is signed by keys that are not here.
"""

import datetime as dt
import re
import threading
from pathlib import Path
from typing import Any, Final

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from edge_contract import durable
from edge_contract.errors import SignatureError, StoreError
from fleet.adapters.tuf_checks import T, at, checked_root, checked_targets, read
from fleet.adapters.tuf_keys import load_signer, make_key, public_pem
from fleet.adapters.tuf_teams import checked_team, signer_of, teams_shown, vouched

__all__ = ["SIGNED_AT", "SNAPSHOT_LIFE", "TIMESTAMP_LIFE", "TufRepository"]

TIMESTAMP_LIFE: Final = dt.timedelta(days=1)
SNAPSHOT_LIFE: Final = dt.timedelta(days=7)
SIGNED_AT: Final = "x-strop-signed-at"
"""Extra field of the timestamp: when it was signed, in whole seconds; a device's floor for its own clock."""

_SERVED: Final = re.compile(r"(timestamp|[1-9][0-9]{0,8}\.[a-z][a-z0-9-]{0,31})\.json")
_KEPT_SNAPSHOTS: Final = 16  # a device in the middle of a refresh still finds the one it was told of
_KEY, _PUBLIC, _NEXT_KEY = "online.key", "online.pub", "online-next.key"


class TufRepository:
    """The metadata that devices fetch below ``/tuf/``; safe to call from several threads.

    Args:
        folder: Made by ``TufRepository.create``.

    Raises:
        StoreError: The folder or its online key cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.RLock()
        self._signer = load_signer(folder / _KEY)
        self._root = self._newest_root()
        self._timestamp = read(Timestamp, folder / "timestamp.json")
        self._snapshot = self._led_to(Snapshot, self._timestamp.signed.snapshot_meta if self._timestamp else None)
        meta = self._snapshot.signed.meta["targets.json"] if self._snapshot else None
        self._targets = self._led_to(Targets, meta)
        self._teams = self._published_teams()
        self._vouched = vouched(self._signed, self._teams)

    @classmethod
    def create(cls, folder: Path) -> "TufRepository":
        """Make the online key in a folder.

        Raises:
            StoreError: The folder holds one already; it is left as it is.
        """
        if (folder / _KEY).exists():
            raise StoreError("a TUF repository is here already", where=str(folder), fix="use it")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        make_key(folder / _KEY)
        repository = cls(folder)
        durable.write(folder / _PUBLIC, repository.online_public)
        return repository

    @property
    def online_public(self) -> bytes:
        """The online key's public half in PEM, for ``strop export keys init --online``."""
        return public_pem(self._signer)

    @property
    def root_bytes(self) -> bytes:
        """The newest root.json, which an enrolled device is given.

        Raises:
            SignatureError: No root is installed yet.
        """
        with self._lock:
            if self._root is None:
                raise SignatureError("no root.json is installed", where="TUF repository", fix=_INSTALL)
            return self._path("root", self._root.signed.version).read_bytes()

    @property
    def targets_version(self) -> int:
        """Version of the published targets.json, 0 before the first."""
        return self._targets.signed.version if self._targets else 0

    def file(self, name: str) -> bytes | None:
        """Return a metadata file by its name, or None: a name that is not ours is never looked up on disk.

        >>> TufRepository.file(None, "../online.key") is None
        True
        """
        if _SERVED.fullmatch(name) is None:
            return None
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def authorises(self, sha256: str) -> bool:
        """True if the published targets name this blob, the fleet's or a team's."""
        with self._lock:
            return sha256 in self._vouched

    def install_root(self, data: bytes, *, now: float, targets: bytes | None = None) -> None:
        """Take a root from the workstation: the first one as it is, each next one signed by the old and the new keys.

        Args:
            data: root.json.
            now: Seconds since 1970.
            targets: After a rotation of the targets key, targets.json signed by the new one: both become
                visible together. Without it devices refuse updates until the next ``publish_targets``.

        Raises:
            SignatureError: Malformed, not signed enough, expired, out of order, or for another server's key.
        """
        with self._lock:
            old = self._root
            if old is not None and data == self._path("root", old.signed.version).read_bytes():
                return
            root = checked_root(data, old.signed if old else None, now)
            signer = self._signer_for(root)
            new_targets = (
                checked_targets(targets, root.signed, self.targets_version, now) if targets is not None else None
            )
            durable.write(self._path("root", root.signed.version), data)
            self._adopt_signer(signer)
            self._root = root
            if new_targets is not None and targets is not None:
                self._publish(new_targets, targets, now)
            elif self._targets is not None:
                self._sign_snapshot(now)  # the online key may be another one now

    def check_targets(self, data: bytes, *, now: float) -> Metadata[Targets]:
        """Return targets that ``publish_targets`` would take, the fleet's or a team's; nothing is changed.

        Raises:
            SignatureError: No root yet, signed by a foreign key, not newer than the published version,
                expired, or naming a target that its signer may not sign.
        """
        with self._lock:
            return self._judged(data, now)[1]

    def publish_targets(self, data: bytes, *, now: float) -> None:
        """Make new targets the ones that devices see; the published bytes again change nothing.

        Raises:
            SignatureError: As ``check_targets``.
        """
        with self._lock:
            team, targets = self._judged(data, now)
            if self._is_published(data, team):
                return
            if team:
                durable.write(self._path(team, targets.signed.version), data)
                self._teams[team] = targets
                self._sign_snapshot(now)
            else:
                self._publish(targets, data, now)

    def _judged(self, data: bytes, now: float) -> tuple[str, Metadata[Targets]]:
        """Who signed, the fleet ("") or a team, and what."""
        if self._root is None:
            raise SignatureError("no root.json is installed", where="targets.json", fix=_INSTALL)
        if self._targets is not None and self._is_published(data):
            return "", self._targets
        if self._signed is not None and (team := signer_of(self._signed, data)):
            known = self._teams.get(team)
            if known is not None and self._is_published(data, team):
                return team, known
            return team, checked_team(data, team, self._signed, known.signed.version if known else 0, now)
        return "", checked_targets(data, self._root.signed, self.targets_version, now)

    @property
    def _signed(self) -> Targets | None:
        return self._targets.signed if self._targets else None

    def _is_published(self, data: bytes, team: str = "") -> bool:
        known = self._teams.get(team) if team else self._targets
        return known is not None and data == self._path(team or "targets", known.signed.version).read_bytes()

    def _published_teams(self) -> dict[str, Metadata[Targets]]:
        """Every team's metadata that the snapshot names; also of teams that sign nothing now: TUF forgets none."""
        found = {}
        for name, meta in (self._snapshot.signed.meta if self._snapshot else {}).items():
            team = name.removesuffix(".json")
            if team != "targets" and (one := read(Targets, self._path(team, meta.version))) is not None:
                found[team] = one
        return found

    def refresh(self, now: float) -> bool:
        """Sign what has used up half of its life; call at start and hourly. True if something was signed."""
        with self._lock:
            if self._targets is None or self._snapshot is None or self._timestamp is None:
                return False
            if self._is_half_used(self._snapshot.signed, SNAPSHOT_LIFE, now):
                self._sign_snapshot(now)
                return True
            if self._is_half_used(self._timestamp.signed, TIMESTAMP_LIFE, now):
                self._sign_timestamp(now)
                return True
            return False

    def new_online_key(self, *, anew: bool = False) -> bytes:
        """Make the next online key and return its public half; the root that names it puts it to use.

        One that waits already is told again, because a root that names it may be on its way; ``anew`` forgets it.
        """
        with self._lock:
            path = self._folder / _NEXT_KEY
            return public_pem(load_signer(path) if path.exists() and not anew else make_key(path))

    def shown(self) -> dict[str, Any]:
        """Return versions and ends of what is published, and the ids of the online keys."""
        with self._lock:
            parts = {"root": self._root, "targets": self._targets, "snapshot": self._snapshot}
            shown: dict[str, Any] = {
                role: {"version": part.signed.version, "expires": part.signed.expires.timestamp()} if part else None
                for role, part in {**parts, "timestamp": self._timestamp}.items()
            }
            path = self._folder / _NEXT_KEY
            waiting = load_signer(path).public_key.keyid if path.exists() else ""
            shown["teams"] = teams_shown(self._signed, self._teams)
            return {**shown, "online_key": self._signer.public_key.keyid, "next_key": waiting}

    def _path(self, role: str, version: int) -> Path:
        return self._folder / f"{version}.{role}.json"

    def _newest_root(self) -> Metadata[Root] | None:
        names = [path.name.split(".")[0] for path in self._folder.glob("*.root.json")]
        versions = [int(name) for name in names if name.isdigit()]
        return read(Root, self._path("root", max(versions))) if versions else None

    def _led_to(self, kind: type[T], meta: MetaFile | None) -> Metadata[T] | None:
        return read(kind, self._path(kind.type, meta.version)) if meta else None

    def _signer_for(self, root: Metadata[Root]) -> CryptoSigner:
        candidates = [self._signer]
        if (self._folder / _NEXT_KEY).exists():
            candidates.append(load_signer(self._folder / _NEXT_KEY))
        for signer in candidates:
            keyid = signer.public_key.keyid
            if all(keyid in root.signed.roles[role].keyids for role in ("snapshot", "timestamp")):
                return signer
        fix = f"strop export keys rotate --online {self._folder / _PUBLIC}"
        raise SignatureError("names another server's online key", where="root.json", fix=fix)

    def _adopt_signer(self, signer: CryptoSigner) -> None:
        if signer is self._signer:
            return
        durable.write(self._folder / _KEY, signer.private_bytes, mode=durable.PRIVATE)
        durable.write(self._folder / _PUBLIC, public_pem(signer))
        (self._folder / _NEXT_KEY).unlink()
        self._signer = signer

    def _publish(self, targets: Metadata[Targets], data: bytes, now: float) -> None:
        durable.write(self._path("targets", targets.signed.version), data)
        self._targets = targets
        self._sign_snapshot(now)

    def _sign_snapshot(self, now: float) -> None:
        meta = MetaFile.from_data(
            self.targets_version, self._path("targets", self.targets_version).read_bytes(), ["sha256"]
        )
        version = self._snapshot.signed.version + 1 if self._snapshot else 1
        files = {"targets.json": meta} | {f"{team}.json": self._meta(team, one) for team, one in self._teams.items()}
        snapshot = Metadata(Snapshot(version, expires=at(now) + SNAPSHOT_LIFE, meta=files))
        snapshot.sign(self._signer)
        durable.write(self._path("snapshot", version), snapshot.to_bytes())
        self._snapshot = snapshot
        self._vouched = vouched(self._signed, self._teams)
        self._sign_timestamp(now)
        self._path("snapshot", version - _KEPT_SNAPSHOTS).unlink(missing_ok=True)

    def _meta(self, team: str, one: Metadata[Targets]) -> MetaFile:
        return MetaFile.from_data(one.signed.version, self._path(team, one.signed.version).read_bytes(), ["sha256"])

    def _sign_timestamp(self, now: float) -> None:
        assert self._snapshot is not None
        version = self._snapshot.signed.version
        meta = MetaFile.from_data(version, self._path("snapshot", version).read_bytes(), ["sha256"])
        number = self._timestamp.signed.version + 1 if self._timestamp else 1
        signed = Timestamp(number, expires=at(now) + TIMESTAMP_LIFE, snapshot_meta=meta)
        signed.unrecognized_fields[SIGNED_AT] = int(now)
        timestamp = Metadata(signed)
        timestamp.sign(self._signer)
        durable.write(self._folder / "timestamp.json", timestamp.to_bytes())
        self._timestamp = timestamp

    def _is_half_used(self, signed: Snapshot | Timestamp, life: dt.timedelta, now: float) -> bool:
        left = signed.expires - at(now)
        return left < life / 2 or left > life  # more than a life left: it was signed while our clock ran ahead


_INSTALL: Final = "strop fleet trust KEYS/root.json"
