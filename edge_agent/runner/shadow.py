# SPDX-License-Identifier: Apache-2.0
"""A second model beside the active one: it answers the same inputs, and only the comparison is reported."""

from typing import Any

from numpy.typing import NDArray

from edge_agent.runner.answers import Answer, agree
from edge_agent.runner.model import Model

__all__ = ["Shadow"]

Array = NDArray[Any]


class Shadow:
    """Compares a shadow with the active model. The totals run since this comparison began.

    Args:
        model: The shadow.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._compared = self._agreed = self._errors = 0
        self._active_us = self._shadow_us = 0.0

    def compare(self, raw: Array, active: Answer) -> bool:
        """Let the shadow answer an input that the active model answered; False if it answers otherwise.

        A failing shadow is counted, never raised, and disagrees with nobody.
        """
        try:
            shadow = self.model.predict(raw)
        except Exception:  # whatever it is: the answers of the active model must not suffer from it
            self._errors += 1
            return True
        agreed = agree(active, shadow)
        self._compared += 1
        self._agreed += agreed
        self._active_us += active.latency_us
        self._shadow_us += shadow.latency_us
        return bool(agreed)

    def restart(self) -> None:
        """Begin a new comparison: the active model is another one now."""
        self._compared = self._agreed = self._errors = 0
        self._active_us = self._shadow_us = 0.0

    def totals(self) -> dict[str, Any]:
        """Return bundle, n (inputs that both answered), agree, errors and both latency sums in µs."""
        return {
            "bundle": self.model.bundle,
            "n": self._compared,
            "agree": self._agreed,
            "errors": self._errors,
            "active_us": round(self._active_us, 1),
            "shadow_us": round(self._shadow_us, 1),
        }
