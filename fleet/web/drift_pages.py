# SPDX-License-Identifier: Apache-2.0
"""The page of drift: which devices see other inputs than the model was made for, the worst first."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from fleet.adapters.search import SORTS
from fleet.web.binder import Binder
from fleet.web.device_pages import shown_device

__all__ = ["drift_pages"]

_SHOWN: Final = 50


def drift_pages(binder: Binder) -> None:
    """Add the page."""
    store, clock = binder.operations.store, binder.operations.clock

    @binder.router.get("/drift")
    def drift(request: Request, all: int = 0) -> Response:  # noqa: A002 - the parameter's name in the address
        lines, now = binder.roster.lines(), clock()
        key = SORTS["drift"]
        chosen = [line for line in lines if line.level in ("ALARM", "WARN") or (all and line.level)]
        chosen.sort(key=lambda line: (key(line, now), line.device))
        shown = store.read(lambda db: [shown_device(db, line.device, now) for line in chosen[:_SHOWN]])
        counts = {level: sum(line.level == level for line in lines) for level in ("ALARM", "WARN", "OK", "")}
        return binder.page(
            request, "drift.html", page="drift", devices=[one for one in shown if one], counts=counts,
            total=len(chosen), every=bool(all),
        )  # fmt: skip
