# SPDX-License-Identifier: Apache-2.0
"""What the operators' listener has to know of the process around it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.config import FleetConfig, is_loopback
from fleet.core.accounts import SessionRules

__all__ = ["Site", "page_tls"]


@dataclass(frozen=True)
class Site:
    """The surroundings of the page.

    Attributes:
        file_token: What stands in ``operator.token``.
        broker_is_up: Whether the server's link to the broker stands.
        is_local: True if only this machine reaches the listener.
        open_viewing: Let everybody on this machine look, even when there are accounts.
        is_tls: Whether the listener speaks TLS.
        data: The data folder, whose disk must not fill; None where there is none.
        rules: When sessions end.
        enrol_url: Where new devices come in.
        device_metrics: Whether /metrics tells series of each device.
    """

    file_token: str
    broker_is_up: Callable[[], bool] = lambda: True
    is_local: bool = True
    open_viewing: bool = False
    is_tls: bool = False
    data: Path | None = None
    rules: SessionRules = field(default_factory=SessionRules)
    enrol_url: str = ""
    device_metrics: bool = True

    @classmethod
    def of(
        cls, config: FleetConfig, data: Path, file_token: str, broker_is_up: Callable[[], bool], enrol_url: str
    ) -> "Site":
        """Return the site of a server's settings."""
        return cls(
            file_token,
            broker_is_up,
            is_local=is_loopback(config.host),
            open_viewing=config.open_viewing,
            is_tls=config.has_page_tls,
            data=data,
            rules=SessionRules(config.session_idle_s, config.session_max_s),
            enrol_url=enrol_url,
            device_metrics=config.device_metrics,
        )


def page_tls(config: FleetConfig, own: dict[str, Any]) -> dict[str, Any]:
    """Return what the listener's TLS needs: a given certificate, the server's own, or nothing for plain HTTP."""
    if config.page_certificate:
        return {"ssl_certfile": config.page_certificate, "ssl_keyfile": config.page_key}
    return own if config.page_tls else {}
