# SPDX-License-Identifier: Apache-2.0
"""The drift part of a device's page beside its level: window by window, who decided about the inputs, its cohorts."""

from typing import Any, Final

from edge_contract.counts import latency_quantile_us
from edge_contract.findings import Level
from fleet.adapters import telemetry
from fleet.adapters.database import Connection
from fleet.adapters.drift_book import DriftBook
from fleet.core.drift import Window
from fleet.web import views
from fleet.web.drift_charts import Strip, strips

__all__ = ["device_drift"]

_SHOWN: Final = 48
_MIX: Final = {
    "label shift": "Other classes came, each looking as ever.",
    "covariate shift": "The inputs changed: another mix of classes does not explain it.",
    "unknown": "Whether other classes came cannot be said: the model confuses too much.",
}


def _strip(window: Window) -> Strip:
    verdict, counters, warm = window.verdict, window.summary.counters, window.summary.health.temperature_c
    return Strip(
        window.summary.start_ms / 1000,
        verdict.level.value.lower(),
        {one.name: one.effect for one in verdict.channels if one.p is not None},
        frozenset(one.name for one in verdict.channels if one.text),
        latency_quantile_us(counters.latency, 0.5),
        latency_quantile_us(counters.latency, 0.95),
        warm[1] if warm else None,
    )


def _label(windows: tuple[Window, ...]) -> str:
    levels = [one.verdict.level.value for one in windows]
    alarms, warnings = levels.count("ALARM"), levels.count("WARN")
    told = f"{len(windows)} windows: {alarms} in alarm, {warnings} unusual"
    return f"{told}. Distance of each channel, latency and temperature, oldest window left."


def _mix(windows: tuple[Window, ...]) -> str:
    """Say of the newest judged window whether other classes came, or the inputs changed."""
    judged = (one.verdict for one in reversed(windows) if one.verdict.level is not Level.INSUFFICIENT)
    prior = getattr(next(judged, None), "prior", None)
    return _MIX.get(prior.kind.value, "") if prior is not None else ""


def _inputs(db: Connection, device: str) -> str:
    newest = telemetry.windows(db, device, 1)
    told = newest[-1].verdict.get("inputs") if newest else None
    return str(told.get("words", "")) if isinstance(told, dict) else ""


def device_drift(db: Connection, book: DriftBook, device: str) -> dict[str, Any]:
    """Return what the page shows beside the level: ``strips``, ``inputs`` and ``mix`` in words, and its ``cohorts``."""
    windows = views.drift_windows(db, device, _SHOWN)
    mine = [(one, next((odd.words for odd in one.odd if odd.device == device), "")) for one in book.places_of(device)]
    return {
        "strips": strips([_strip(one) for one in windows], _label(windows)) if windows else "",
        "inputs": _inputs(db, device),
        "mix": _mix(windows),
        "cohorts": [(one, odd) for one, odd in mine if one.devices > 1 and (one.value or one.by == "bundle")],
    }
