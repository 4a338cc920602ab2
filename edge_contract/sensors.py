# SPDX-License-Identifier: Apache-2.0
"""How the means of single sensors moved: the evidence of series and vectors beside their pooled statistics."""

from edge_contract.counts import EMBEDDING_UNIT, Counters
from edge_contract.profile import ReferenceProfile
from edge_contract.statistics import Evidence, combine, compare_moments

__all__ = ["sensor_shifts", "sensors"]


def sensor_shifts(profile: ReferenceProfile, counters: Counters) -> list[float]:
    """Return how far each sensor's mean moved, in deviations of its mean over the reference's windows [sensors]."""
    found = []
    count, seen = counters.form.sensors, max(sum(counters.brightness), 1)
    reference, m = profile.counters.sensors, max(sum(profile.counters.brightness), 1)
    for i in range(min(count, len(reference) // 2)):
        mean = reference[i] / m / EMBEDDING_UNIT
        variance = reference[count + i] / m / EMBEDDING_UNIT - mean * mean
        shift = counters.sensors[i] / seen / EMBEDDING_UNIT - mean
        found.append(shift / max(variance, 1e-9) ** 0.5)
    return found


def sensors(profile: ReferenceProfile, counters: Counters, design: float) -> Evidence | None:
    """Return the joint evidence of the sensors' means (Bonferroni); None where there are none."""
    seen, m = sum(counters.brightness), sum(profile.counters.brightness)
    if not seen or not m:
        return None
    shifts = sensor_shifts(profile, counters)
    parts = [compare_moments(shift * shift, 1, seen / design, m) for shift in shifts]
    return combine([one for one in parts if one is not None])
