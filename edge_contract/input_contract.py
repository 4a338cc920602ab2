# SPDX-License-Identifier: Apache-2.0
"""What a model expects of its raw inputs, and what a device does with one that is not so: the manifest's promise.

Shape and type follow from the preprocessing; the rest is measured on the calibration data or known of the sensor::

    "input_contract": {"policy": "refuse", "minimum": -16.0, "maximum": 16.0, "max_age_s": 2.0, "stuck_after": 50}

| policy | a value outside the range, or not finite | another shape or type, a stale or a stuck input |
|---|---|---|
| ``refuse`` | no answer | no answer |
| ``clamp`` | is moved to the nearest allowed value | no answer |
| ``pass`` | is counted | is counted, and answered if the model can |
"""

from dataclasses import dataclass
from typing import Any, Final

from edge_contract.closed import refuse_unknown
from edge_contract.errors import ManifestError, StropError
from edge_contract.fields import Fields

__all__ = ["POLICIES", "VIOLATIONS", "InputContract"]

POLICIES: Final = ("refuse", "clamp", "pass")
VIOLATIONS: Final = ("shape", "dtype", "nan", "range", "stale", "stuck")
_LEAST_RUN: Final = 3
"""Two equal frames happen; also, equality is first judged by a sample, and proved from the third on."""


@dataclass(frozen=True)
class InputContract:
    """What raw inputs must be.

    Attributes:
        policy: One of ``POLICIES``.
        minimum, maximum: Allowed raw values, both ends included; None where nothing is known.
        max_age_s: Oldest input that is worth an answer, seconds; 0 for any age.
        stuck_after: So many identical inputs in a row mean that the sensor hangs; 0 for never.
        may_be_flat: False: an input whose values are all equal counts as stuck, too (a covered or dead camera).

    Example:
        >>> InputContract.from_json({"policy": "clamp", "maximum": 1}).to_json()
        {'policy': 'clamp', 'maximum': 1.0}
    """

    policy: str = "refuse"
    minimum: float | None = None
    maximum: float | None = None
    max_age_s: float = 0.0
    stuck_after: int = 0
    may_be_flat: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; what stands at its default is left out, the policy always stands."""
        document: dict[str, Any] = {"policy": self.policy}
        for key, default in (("minimum", None), ("maximum", None), ("max_age_s", 0.0), ("stuck_after", 0)):
            if getattr(self, key) != default:
                document[key] = getattr(self, key)
        return document if self.may_be_flat else {**document, "may_be_flat": False}

    @classmethod
    def from_json(
        cls, document: Any, where: str = "input_contract", error: type[StropError] = ManifestError
    ) -> "InputContract":
        """Return the contract in a JSON or TOML object.

        Raises:
            ManifestError: (or ``error``) An unknown key or policy, a range without room, a negative age, or a run of
                fewer than three inputs.
        """
        f = Fields(document, where, error)
        contract = cls(
            f.text("policy", "refuse", among=POLICIES),
            f.number("minimum") if "minimum" in document else None,
            f.number("maximum") if "maximum" in document else None,
            f.number("max_age_s", 0.0),
            f.integer("stuck_after", 0, minimum=0),
            f.flag("may_be_flat", True),
        )
        refuse_unknown(f)
        low, high = contract.minimum, contract.maximum
        if low is not None and high is not None and low >= high:
            raise error(f"values from {low:g} to {high:g}", where=f"{where}.minimum", fix="set it below the maximum")
        if contract.max_age_s < 0:
            raise error(f"an age of {contract.max_age_s:g} s", where=f"{where}.max_age_s", fix="use 0 for any age")
        if 0 < contract.stuck_after < _LEAST_RUN:
            fix = f"use 0 for never, or at least {_LEAST_RUN}"
            raise error(f"stuck after {contract.stuck_after} inputs", where=f"{where}.stuck_after", fix=fix)
        return contract
