# SPDX-License-Identifier: Apache-2.0
"""The page of models: versions, where each stands, where it runs and where it comes from."""

from collections import defaultdict
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from fleet.adapters import channels, tables
from fleet.adapters.database import Connection
from fleet.adapters.roster import Line
from fleet.core.lineage import checks_passed, waivers
from fleet.web import views
from fleet.web.binder import Binder

__all__ = ["model_pages", "models_of"]

_SHOWN_NAMES: Final = 8
_SHOWN_VERSIONS: Final = 100


def models_of(db: Connection, lines: list[Line]) -> dict[str, Any]:
    """Return what the page shows: versions with the devices that run them, channels, moves."""
    running: dict[tuple[str, str], list[str]] = defaultdict(list)
    for line in lines:
        for slot in line.slots:
            running[slot.model, slot.running].append(line.device)
    gone, shown = channels.retired(db), []
    for version in tables.models(db)[:_SHOWN_VERSIONS]:
        devices = running[version.model, version.bundle]
        shown.append(
            {
                **views.plain(version.to_json()),
                "channels": sorted(channels.channels_of(db, version.bundle)),
                "retired": gone.get(version.bundle, (0.0, ""))[1] or ("retired" if version.bundle in gone else ""),
                "running": len(devices),
                "checks_passed": checks_passed(version),
                "waivers": waivers(version),
                "running_on": devices[:_SHOWN_NAMES],
            }
        )
    moves = [one.to_json() for one in channels.moves(db, limit=20)]
    names = {version.bundle: version.version for version in tables.models(db)}
    return {"models": shown, "standing": channels.standing(db), "moves": moves, "names": names}


def model_pages(binder: Binder) -> None:
    """Add the page."""

    @binder.router.get("/models")
    def models(request: Request) -> Response:
        lines = binder.roster.lines()
        found = binder.operations.store.read(lambda db: models_of(db, lines))
        return binder.page(request, "models.html", page="models", **found)
