# SPDX-License-Identifier: Apache-2.0
"""Patches on the server's disk: ``<data>/deltas``, beside the blobs, because nobody signs them.

::

    blobs/ab/abcd…       patches, by their SHA-256
    pairs/<target>.json  for a file: from which bases patches were made, are worth it, or are blocked

A patch is made by ``python -m export.delta`` in a process of its own. What a device gets by it is judged by the
SHA-256 of the result, which is signed; so a bad patch costs bytes, and after the first device that says so, it is
offered to nobody any more.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from edge_contract import canonical, durable
from edge_contract.deltas import Offer, offers_to_bytes
from edge_contract.errors import MissingDependencyError, StoreError, StropError
from fleet.adapters.blobs import BlobStore
from fleet.core.deltas import FilePair

__all__ = ["DeltaStore", "PatchProcess"]

MAKE_TIMEOUT_S: Final = 1800.0
_ROOT: Final = Path(__file__).resolve().parents[2]


class DeltaStore:
    """Patches and what is known of pairs; safe to call from several threads.

    Args:
        folder: Made if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._pairs, self._lock = folder / "pairs", threading.Lock()
        self._blobs = BlobStore(_made(folder) / "blobs")
        self._pairs.mkdir(exist_ok=True)

    @property
    def patches(self) -> BlobStore:
        """The patches by their SHA-256."""
        return self._blobs

    def path(self, sha256: str) -> Path | None:
        """Return the file of a patch, None if there is none; raises StoreError for what is no SHA-256."""
        return self._blobs.path(sha256)

    def offers(self, target: str) -> list[Offer]:
        """Return the patches towards a file, smallest first."""
        entries = self._read(target)
        made = [Offer(base, e["codec"], e["sha256"], e["size"]) for base, e in entries.items() if "sha256" in e]
        usable = [offer for offer in made if not entries[offer.base].get("blocked")]
        return sorted(usable, key=lambda offer: offer.size)

    def index(self, target: str) -> bytes:
        """Return what a device is told about a file."""
        return offers_to_bytes(target, self.offers(target))

    def is_known(self, pair: FilePair) -> bool:
        """True if a patch was made, is not worth it, or is blocked."""
        return pair.base in self._read(pair.target)

    def add(self, pair: FilePair, patch: Path | None, facts: dict[str, Any]) -> None:
        """Remember a pair: with its patch, or that none is worth it.

        Raises:
            StoreError: The disk refuses.
        """
        entry: dict[str, Any] = {}
        if patch is not None:
            data = patch.read_bytes()
            sha256 = canonical.digest(data)
            self._blobs.put(sha256, [data])
            entry = {"codec": str(facts["codec"]), "sha256": sha256, "size": len(data)}
        # A file that needs no base at all is the shortest way for whoever holds another one, too.
        self._change(pair.target, pair.base, {})
        self._change(pair.target, str(facts.get("base", pair.base)), entry)

    def block(self, pair: FilePair) -> bool:
        """Offer this pair to nobody any more; False if it was blocked or is not one of ours."""
        entries = self._read(pair.target)
        if pair.base not in entries or entries[pair.base].get("blocked"):
            return False
        self._change(pair.target, pair.base, {**entries[pair.base], "blocked": True})
        return True

    def sweep(self, wanted: Collection[str]) -> int:
        """Forget all towards other files than these, but what is blocked; return how many patches went."""
        gone = 0
        for path in self._pairs.glob("*.json"):
            if path.stem in wanted:
                continue
            with self._lock:
                entries = self._read(path.stem)
                stay = {base: {"blocked": True} for base, entry in entries.items() if entry.get("blocked")}
                for held in filter(None, (self._blobs.path(e["sha256"]) for e in entries.values() if "sha256" in e)):
                    held.unlink()
                    gone += 1
                if not stay:
                    path.unlink()
                elif stay != entries:
                    durable.write(path, canonical.dumps(stay))
        return gone

    def _read(self, target: str) -> dict[str, Any]:
        try:
            path = self._file(target)
            found: dict[str, Any] = json.loads(path.read_bytes())
            return found
        except (OSError, ValueError, StoreError):
            return {}

    def _file(self, target: str) -> Path:
        if len(target) != 64 or set(target) - set("0123456789abcdef"):
            raise StoreError(f"{target[:70]!r} is not a SHA-256")
        return self._pairs / f"{target}.json"

    def _change(self, target: str, base: str, entry: dict[str, Any]) -> None:
        with self._lock:
            entries = self._read(target)
            if entry or base not in entries:
                durable.write(self._file(target), canonical.dumps({**entries, base: entry}))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class PatchProcess:
    """Makes one patch at a time in a process of its own, and ends it when it is told to.

    Args:
        python: An interpreter with the ``fleet`` extra.
    """

    def __init__(self, python: str = sys.executable) -> None:
        self._python, self._lock, self._is_stopped = python, threading.Lock(), False
        self._child: subprocess.Popen[bytes] | None = None

    def make(self, base: Path, target: Path, out: Path) -> dict[str, Any]:
        """Make a patch; ``out`` is there afterwards if it is worth it. Return its facts.

        Raises:
            MissingDependencyError: numpy or zstandard is not installed.
            StropError: It failed, with its last line, or was stopped.
        """
        out.unlink(missing_ok=True)
        try:
            child = self._start([str(base), str(target), str(out)])
            said, complaint = child.communicate(timeout=MAKE_TIMEOUT_S)
            if child.returncode == 0:
                facts: dict[str, Any] = json.loads(said)
                return facts
        except (OSError, ValueError) as error:
            raise StropError(f"{type(error).__name__}: {error}", where="patch") from error
        except subprocess.TimeoutExpired as error:
            child.kill()
            child.communicate()
            raise StropError(f"not made within {MAKE_TIMEOUT_S:g} s", where="patch") from error
        line = (complaint.decode(errors="replace").strip().splitlines() or [f"code {child.returncode}"])[-1][:300]
        if "not installed" in line:
            raise MissingDependencyError("patches need numpy and zstandard", fix="pip install 'strop[fleet]'")
        raise StropError(line, where="patch")

    def stop(self) -> None:
        """End the process under way, and begin no other."""
        with self._lock:
            self._is_stopped = True
            if self._child is not None and self._child.poll() is None:
                self._child.kill()

    def _start(self, words: list[str]) -> "subprocess.Popen[bytes]":
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
        with self._lock:
            if self._is_stopped:
                raise StropError("the server stops", where="patch")
            self._child = subprocess.Popen(
                [self._python, "-P", "-m", "export.delta", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
            )
            return self._child
