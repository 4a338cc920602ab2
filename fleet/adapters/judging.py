# SPDX-License-Identifier: Apache-2.0
"""Judge a device's drift window on the server, with the profile of its bundle and what was remembered."""

import json
from typing import Any

from edge_contract import canonical
from edge_contract.errors import MessageError, StropError, SummaryError
from edge_contract.findings import DriftState, Level, Verdict
from edge_contract.profile import ReferenceProfile
from edge_contract.summary import DriftSummary, decode, short_hash
from edge_contract.verdict import judge
from fleet.adapters import tables
from fleet.adapters.blobs import Blobs
from fleet.adapters.database import Connection, upsert

__all__ = ["WindowJudge"]


class WindowJudge:
    """Callable as ``telemetry.Judge``; keeps the profiles that it has read.

    Args:
        blobs: Where the bundles' files are.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._profiles: dict[tuple[str, int], ReferenceProfile] = {}

    def __call__(self, db: Connection, device: str, bundle: str, data: bytes, told: Any) -> tuple[str, dict[str, Any]]:
        """Return (level, verdict as JSON) of one window and store what is to be remembered.

        Raises:
            ContractError: The summary is damaged, of another device or bundle, or contradicts itself.
        """
        summary = decode(data)
        if summary.device != short_hash(device, 8):
            raise SummaryError("was counted by another device", where=f"summary of {device}")
        if not bundle.startswith(summary.bundle):
            raise SummaryError("was counted for another bundle", where=f"summary of {device}")
        profile = self._profile(db, bundle, summary.profile_crc)
        if profile is None:
            verdict = _as_told(told, summary)
            return verdict.level.value, verdict.to_json()
        verdict, state = judge(profile, summary, _remembered(db, device, bundle))
        stored = canonical.dumps(state.to_json())
        db.execute(upsert("drift_states", "device, bundle", "state"), (device, bundle, stored))
        return verdict.level.value, verdict.to_json()

    def _profile(self, db: Connection, bundle: str, crc: int) -> ReferenceProfile | None:
        if (bundle, crc) not in self._profiles:
            self._profiles.update(self._read_profiles(db, bundle))
        return self._profiles.get((bundle, crc))

    def _read_profiles(self, db: Connection, bundle: str) -> dict[tuple[str, int], ReferenceProfile]:
        version = tables.model(db, bundle)
        if version is None:
            return {}
        found = {}
        for path in sorted(set(version.manifest.profiles.values())):
            profile = ReferenceProfile.from_bytes(self._blobs.read(version.manifest.file(path).sha256))
            found[bundle, profile.crc] = profile
        return found


def _remembered(db: Connection, device: str, bundle: str) -> DriftState:
    values = (device, bundle)
    row = db.execute("SELECT state FROM drift_states WHERE device = ? AND bundle = ?", values).fetchone()
    try:
        return DriftState.from_json(json.loads(row["state"])) if row else DriftState()
    except StropError:  # written by an older server: begin anew
        return DriftState()


def _as_told(told: Any, summary: DriftSummary) -> Verdict:
    """Without the profile the server cannot judge: the device's own verdict stands, if it gave one."""
    if told is None:
        n = summary.counters.n_sampled
        reason = "the bundle's profile is not known here"
        return Verdict(Level.INSUFFICIENT, reason, summary.window, n, 0.0, 1.0, (), 0.0, None, None, None, valid=False)
    try:
        return Verdict.from_json(told)
    except MessageError as error:
        raise MessageError(f"the device's verdict: {error.what}", where="drift") from error
