# SPDX-License-Identifier: Apache-2.0
"""What stays of telemetry when its rows go: an hour of a device and class in a few numbers.

Sums and histograms add up, so an hour may be built in pieces and in any order. Quantiles do not: of metric rows only
the largest p95 stays; drift windows carry histograms, and their sum gives every quantile of the hour.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from edge_contract.errors import StropError
from edge_contract.summary import decode

__all__ = ["HOUR_S", "Rollup", "credible", "hour_of", "read_row"]

HOUR_S: Final = 3600
_OLDEST_S: Final = 366 * 86_400.0
_MOST: Final = 1 << 50


@dataclass(frozen=True)
class Rollup:
    """An hour of one device and class.

    Attributes:
        received: Rows.
        inferences, errors: Sums over them.
        latency: Histogram of the inference time, as in a drift window [LATENCY_BUCKETS]; empty where none came.
        p95_us: Largest p95 of a metric row in µs, 0 where none told one.

    Example:
        >>> a = Rollup(1, 10, 0, (1, 0), 5.0)
        >>> (a + Rollup(1, 5, 1, (0, 2), 9.0)) == Rollup(2, 15, 1, (1, 2), 9.0)
        True
    """

    received: int = 0
    inferences: int = 0
    errors: int = 0
    latency: tuple[int, ...] = ()
    p95_us: float = 0.0

    def __add__(self, other: "Rollup") -> "Rollup":
        width = max(len(self.latency), len(other.latency))
        mine, its = (one.latency + (0,) * (width - len(one.latency)) for one in (self, other))
        return Rollup(
            self.received + other.received,
            self.inferences + other.inferences,
            self.errors + other.errors,
            tuple(a + b for a, b in zip(mine, its, strict=True)),
            max(self.p95_us, other.p95_us),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what stands beside the sums in the database."""
        return {"latency": list(self.latency), "p95_us": self.p95_us}


def hour_of(measured: float, received: float) -> int:
    """Return the hour since 1970 that a row counts for: of its own time, unless its clock is plainly wrong.

    Example:
        >>> hour_of(7200.0, 7300.0), hour_of(0.0, 1.7e9) == int(1.7e9 // 3600)
        (2, True)
    """
    return int(credible(measured, received) // HOUR_S)


def credible(measured: float, received: float) -> float:
    """Return when something happened: the device's word, or the arrival where its clock is plainly wrong.

    Example:
        >>> credible(7200.0, 7300.0), credible(0.0, 1.7e9)
        (7200.0, 1700000000.0)
    """
    return measured if received - _OLDEST_S <= measured <= received + HOUR_S else received


def read_row(cls: str, body: Mapping[str, Any]) -> Rollup:
    """Return what one row adds; a body that cannot be read counts as a row and nothing more.

    Example:
        >>> read_row("metric", {"n": 5, "errors": 1, "p95_us": 900})
        Rollup(received=1, inferences=5, errors=1, latency=(), p95_us=900.0)
        >>> read_row("event", {"kind": "started"})
        Rollup(received=1, inferences=0, errors=0, latency=(), p95_us=0.0)
    """
    row = Rollup(1)
    if cls == "metric":
        return replace(row, inferences=_count(body.get("n")), errors=_count(body.get("errors")), p95_us=_p95(body))
    if cls == "result":
        return replace(row, inferences=len(body["rows"]) if isinstance(body.get("rows"), list) else 0)
    if cls == "drift":
        return row + _window(body)
    return row


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST else 0


def _p95(body: Mapping[str, Any]) -> float:
    value = body.get("p95_us")
    if isinstance(value, str) and value.startswith("0x"):
        try:
            value = float.fromhex(value)
        except (ValueError, OverflowError):
            return 0.0
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < _MOST else 0.0  # type: ignore[arg-type,operator]


def _window(body: Mapping[str, Any]) -> Rollup:
    try:
        counters = decode(base64.b64decode(body["summary"], validate=True)).counters
    except (KeyError, TypeError, ValueError, StropError):
        return Rollup()
    return Rollup(0, counters.n_infer, counters.n_err, tuple(counters.latency))
