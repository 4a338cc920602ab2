# SPDX-License-Identifier: Apache-2.0
"""The pages of drift: which cohorts moved, which devices differ from their cohort, and one cohort hour by hour."""

import urllib.parse
from collections.abc import Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fleet.adapters.search import SORTS
from fleet.adapters.signals import open_signals
from fleet.core.drift_groups import GROUPINGS
from fleet.core.drift_story import CohortView, HourPoint
from fleet.web.binder import Binder
from fleet.web.device_pages import shown_device
from fleet.web.drift_charts import Strip, effect_bar, effect_words, strips
from fleet.web.faults import not_found

__all__ = ["drift_pages"]

_SHOWN: Final = 50
_SHOWN_COHORTS: Final = 12
_SHOWN_ODD: Final = 100
_KINDS: Final = {
    "moved": ("alarm", "all moved"),
    "both": ("alarm", "all moved, some otherwise"),
    "differ": ("warn", "single devices differ"),
    "calm": ("ok", "as usual"),
    "few": ("insufficient", "collecting"),
}
_INPUTS: Final = {
    "hours": "compared with the same hours of earlier days",
    "learning": "hours of the day are being learned",
    "reference": "compared with the bundle's reference",
}
_HELPERS: Final[dict[str, Any]] = {
    "kinds": _KINDS,
    "effect_bar": effect_bar,
    "effect_words": effect_words,
    "input_words": _INPUTS,
}


def address_of(view: CohortView) -> str:
    """Return where a cohort's page is."""
    return "/drift/cohort?" + urllib.parse.urlencode({"bundle": view.bundle[:16], "by": view.by, "value": view.value})


def _strips(hours: Sequence[HourPoint]) -> list[Strip]:
    """Hours as strips: marked are the channels that moved in the hour, by its own verdict."""
    return [
        Strip(
            one.start_s,
            "warn" if one.has_moved else "ok" if one.effects else "insufficient",
            one.effects,
            frozenset(found.name for found in one.cohort.channels if found.moved) if one.cohort else frozenset(),
            one.p50_us,
            one.p95_us,
            one.temperature_c,
        )
        for one in hours
    ]


def _label(hours: Sequence[HourPoint], view: CohortView) -> str:
    moved = [one for one in hours if one.has_moved]
    told = f"{len(moved)} of {len(hours)} hours unlike the reference"
    if moved and view.kind == "differ":
        told += ", by the devices that differ"
    most = max(view.channels, key=lambda one: one.effect, default=None)
    far = f"; furthest: {most.name}, {effect_words(most.effect)}" if most is not None and moved else ""
    return f"{told}{far}. Distance of each channel, latency and temperature, oldest hour left."


def drift_pages(binder: Binder) -> None:
    """Add the pages."""
    operations = binder.operations
    store, clock, book = operations.store, operations.clock, operations.drift

    @binder.router.get("/drift")
    def drift(request: Request, all: int = 0, by: str = "bundle") -> Response:  # noqa: A002 - named in the address
        lines, now = binder.roster.lines(), clock()
        grouping = by if by in GROUPINGS else "bundle"
        cohorts = book.cohorts(grouping)
        key = SORTS["drift"]
        chosen = [line for line in lines if line.level in ("ALARM", "WARN") or (all and line.level)]
        chosen.sort(key=lambda line: (key(line, now), line.device))
        shown = store.read(lambda db: [shown_device(db, line.device, now) for line in chosen[:_SHOWN]])
        counts = {level: sum(line.level == level for line in lines) for level in ("ALARM", "WARN", "OK", "")}
        values: dict[str, Any] = {
            "devices": [one for one in shown if one],
            "counts": counts,
            "total": len(chosen),
            "every": bool(all),
            "cohorts": [(one, address_of(one)) for one in cohorts[:_SHOWN_COHORTS]],
            "cohort_count": len(cohorts),
            "by": grouping,
            "groupings": GROUPINGS,
            "left": book.left,
            "signals": [one.to_json() for one in store.read(open_signals)],
        }
        return binder.page(request, "drift.html", page="drift", **values, **_HELPERS)

    @binder.router.get("/drift/cohort")
    def cohort(request: Request, bundle: str, by: str = "bundle", value: str = "") -> Response:
        found = book.detail(bundle[:64], by, value)
        if found is None:
            raise not_found(f"cohort {by} {value!r} of bundle {bundle[:8]}")
        points = _strips(found.hours)
        chart = strips(points, _label(found.hours, found.view))
        return binder.page(
            request, "drift_cohort.html", page="drift", one=found.view, hours=found.hours, chart=chart,
            odd=found.view.odd[:_SHOWN_ODD], **_HELPERS,
        )  # fmt: skip
