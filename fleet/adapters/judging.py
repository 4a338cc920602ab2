# SPDX-License-Identifier: Apache-2.0
"""Judge a device's drift window on the server, with the profile of its bundle and what was remembered."""

import json
from typing import Any

from edge_contract import canonical
from edge_contract.alarm_setting import RATE_SETTING, limits_of
from edge_contract.canonical import as_float
from edge_contract.daytime import Daytime
from edge_contract.errors import ContractError, MessageError, StropError, SummaryError
from edge_contract.findings import DriftState, Level, Verdict
from edge_contract.profile import ReferenceProfile
from edge_contract.summary import DriftSummary, decode, short_hash
from edge_contract.verdict import judge
from fleet.adapters import drift_hours, tables
from fleet.adapters.blobs import Blobs
from fleet.adapters.database import Connection, upsert

__all__ = ["WindowJudge"]


class WindowJudge:
    """Callable as ``telemetry.Judge``; keeps the profiles that it has read.

    Args:
        blobs: Where the bundles' files are.
        false_alarms: How many false alarms a device may give in a year; 0 takes the contract's own limits.
    """

    def __init__(self, blobs: Blobs, false_alarms: float = 0.0) -> None:
        self._blobs, self._false_alarms = blobs, false_alarms
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
        profile = self.profile(db, bundle, summary.profile_crc)
        if profile is None:
            verdict = _as_told(told, summary)
            return verdict.level.value, verdict.to_json()
        daytime = drift_hours.daytime_of(db, device, profile, summary)
        limits = limits_of(_wanted(db, device) or self._false_alarms, summary.duration_ms)
        verdict, state = judge(profile, summary, _remembered(db, device, bundle), limits, daytime)
        stored = canonical.dumps(state.to_json())
        db.execute(upsert("drift_states", "device, bundle", "state"), (device, bundle, stored))
        return verdict.level.value, {
            **verdict.to_json(),
            **self._inputs(db, device, (profile, summary), daytime, state),
        }

    @staticmethod
    def _inputs(
        db: Connection,
        device: str,
        seen: tuple[ReferenceProfile, DriftSummary],
        daytime: Daytime | None,
        state: DriftState,
    ) -> dict[str, Any]:
        """Let the hour learn, and return who decided about the inputs."""
        if daytime is None or daytime.found is None:
            return {}
        hour = daytime.learned(seen[1].counters, is_alarmed=state.is_alarmed)
        if hour is not None:
            drift_hours.learn(db, device, seen[0], hour)
        return {"inputs": {"against": daytime.used, "words": daytime.words}}

    def profile(self, db: Connection, bundle: str, crc: int) -> ReferenceProfile | None:
        """Return a profile of a bundle; None where the bundle or its profile is not known here."""
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


def _wanted(db: Connection, device: str) -> float:
    """Return what the device's own settings allow, 0 where they say nothing."""
    row = db.execute("SELECT desired FROM devices WHERE device = ?", (device,)).fetchone()
    if row is None or RATE_SETTING not in (text := bytes(row["desired"]).decode()):
        return 0.0
    try:
        return max(0.0, as_float(json.loads(text).get("config", {}).get(RATE_SETTING, 0.0)))
    except (ContractError, ValueError, AttributeError):
        return 0.0


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
