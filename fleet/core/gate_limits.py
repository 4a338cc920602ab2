# SPDX-License-Identifier: Apache-2.0
"""What a rollout's gates tolerate, as an operator writes it."""

from dataclasses import dataclass, fields
from typing import Any

from edge_contract.errors import ContractError, RolloutError
from edge_contract.fields import Fields

__all__ = ["GateLimits"]


@dataclass(frozen=True)
class GateLimits:
    """What is tolerated, and when a wave has been looked at long enough.

    Attributes:
        alpha: Chance that a rollout of a harmless bundle is ever stopped.
        latency: Tolerated growth of median and 95th percentile; 0.02 = 2 %. More, once proved, stops the rollout.
        errors: Tolerated growth of the share of failed inferences; 0.003 = .3 points.
        disagreement: Tolerated share of inputs on which old and new model differ.
        drift: Tolerated growth of how unlike its reference a device's windows are, in deviations (z of the family's p).
        accuracy: Tolerated loss of estimated accuracy, each bundle by its own profile; 0.02 = 2 points.
        proof: False: a wave passes when nothing speaks against it. True: only when it is proved that latency grew by
            less than ``latency_margin`` and errors by less than ``error_margin``.
        latency_margin, error_margin: For ``proof``.
        min_rows: Metric rows that each device must have sent after its update.
        lookback_s: Span before the rollout that "before" means.
        settle_s: Seconds after an update that do not count: caches are cold.
        timeout_s: Seconds after which a gate that still waits lets pass without ``proof``, and fails with it.
    """

    alpha: float = 0.01
    latency: float = 0.02
    errors: float = 0.003
    disagreement: float = 0.1
    drift: float = 1.5
    accuracy: float = 0.02
    proof: bool = False
    latency_margin: float = 0.1
    error_margin: float = 0.02
    min_rows: int = 10
    lookback_s: float = 6 * 3600.0
    settle_s: float = 30.0
    timeout_s: float = 86_400.0

    def to_json(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def from_json(cls, document: Any) -> "GateLimits":
        """Return the limits that an operator wrote.

        Raises:
            RolloutError: An unknown key, or a value of the wrong type or out of range.

        Example:
            >>> GateLimits.from_json({"latency": 0.05}).latency
            0.05
        """
        where, default = "rollout.gates", cls()
        try:
            f = Fields(document, where, ContractError)
            known = [one.name for one in fields(cls)]
            for key in document:
                if key not in known:
                    raise RolloutError(f"unknown field '{key}'", where=where, fix=f"use {', '.join(known)}")
            found = {k: f.number(k, getattr(default, k)) for k in known if k not in ("proof", "min_rows")}
            limits = cls(
                **found,
                proof=f.flag("proof", default.proof),
                min_rows=f.integer("min_rows", default.min_rows, minimum=2),
            )
        except ContractError as error:
            raise RolloutError(error.what, where=error.where or where, fix=error.fix) from error
        if not 0 < limits.alpha <= 0.2:
            raise RolloutError(f"alpha = {limits.alpha:g} is not above 0 and at most 0.2", where=where)
        negative = [key for key, value in found.items() if value < 0]
        if negative:
            raise RolloutError(f"{negative[0]} = {found[negative[0]]:g} is negative", where=where)
        return limits
