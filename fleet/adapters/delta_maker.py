# SPDX-License-Identifier: Apache-2.0
"""The thread that makes patches, one after the other, whenever a bundle was registered or a device changed its mind."""

import json
import logging
from pathlib import Path
from typing import Final

from edge_contract.errors import MissingDependencyError, StropError
from edge_contract.states import RolloutState
from fleet.adapters import tables
from fleet.adapters.blobs import Blobs
from fleet.adapters.database import Connection
from fleet.adapters.deltas import DeltaStore, PatchProcess
from fleet.adapters.pulse import Pulse
from fleet.adapters.store import Store
from fleet.core.deltas import FilePair, blocked_pairs, file_pairs, goals
from fleet.core.registry import ModelVersion

__all__ = ["DeltaMaker"]

_log = logging.getLogger("strop.fleet")

LOOK_S: Final = 30.0
_MAX_EVENTS: Final = 5000
_OPEN: Final = (RolloutState.SCHEDULED, RolloutState.RUNNING, RolloutState.PAUSED)


class DeltaMaker:
    """Looks every half minute, or when woken, which patches are missing; blocks those that a device blames.

    Args:
        store: The database.
        blobs: Files of bundles.
        deltas: Where patches go.
        scratch: A folder for the patch under way.
    """

    def __init__(self, store: Store, blobs: Blobs, deltas: DeltaStore, scratch: Path) -> None:
        self._store, self._blobs, self._deltas, self._out = store, blobs, deltas, scratch / "under-way.delta"
        self._pulse = Pulse("deltas", LOOK_S, self.look, "making patches failed")
        self._process = PatchProcess()
        self._seen_event, self._is_told = 0, False

    def start(self) -> None:
        """Begin."""
        self._pulse.start()

    def wake(self) -> None:
        """Look now."""
        self._pulse.wake()

    def stop(self) -> None:
        """End, and the process that makes a patch as well."""
        self._pulse.stop(0.0)
        self._process.stop()
        self._pulse.stop()

    def look(self) -> int:
        """Block what was blamed, make what is missing; return how many patches were made."""
        self._block()
        self._sweep()
        made = 0
        for pair in self._missing():
            if self._pulse.is_stopping:
                break
            made += self._make(pair)
        return made

    def _sweep(self) -> None:
        goals_now = self._store.read(_goals)
        if gone := self._deltas.sweep({entry.sha256 for goal in goals_now for entry in goal.manifest.files}):
            _log.info("%d patches towards older versions are gone", gone)

    def _missing(self) -> list[FilePair]:
        def read(db: Connection) -> list[FilePair]:
            by_bundle = {version.bundle: version for version in tables.models(db)}
            devices = tables.devices(db)
            return [pair for goal in _goals(db) for pair in file_pairs(goal, by_bundle, devices)]

        return [pair for pair in self._store.read(read) if not self._deltas.is_known(pair)]

    def _make(self, pair: FilePair) -> bool:
        with self._blobs.local(pair.base) as base, self._blobs.local(pair.target) as target:
            return base is not None and target is not None and self._make_of(pair, base, target)

    def _make_of(self, pair: FilePair, base: Path, target: Path) -> bool:
        try:
            facts = self._process.make(base, target, self._out)
            self._deltas.add(pair, self._out if self._out.exists() else None, facts)
        except MissingDependencyError as error:
            if not self._is_told:
                _log.warning("devices get full files: %s", error)
            self._is_told = True
            return False
        except StropError as error:
            if self._pulse.is_stopping:
                return False
            # This pair will not do: the next look must not begin with it again.
            _log.warning("no patch from %s to %s: %s", pair.base[:12], pair.target[:12], error)
            self._deltas.add(pair, None, {})
            return False
        finally:
            self._out.unlink(missing_ok=True)
        _log.info(
            "patch from %s to %s: %s of %s bytes", pair.base[:12], pair.target[:12], facts["bytes"], facts["full"]
        )
        return True

    def _block(self) -> None:
        statement = "SELECT id, device, body FROM telemetry WHERE class = 'event' AND id > ? ORDER BY id LIMIT ?"
        rows = self._store.read(lambda db: list(db.execute(statement, (self._seen_event, _MAX_EVENTS))))
        for row in rows:
            self._seen_event = row["id"]
            for pair in blocked_pairs(json.loads(row["body"])):
                if self._deltas.block(pair):
                    _log.warning("device %s blames the patch to %s; it is blocked", row["device"], pair.target[:12])


def _goals(db: Connection) -> list[ModelVersion]:
    return goals(tables.models(db), [rollout.bundle for rollout in tables.rollouts(db, _OPEN)])
