# SPDX-License-Identifier: Apache-2.0
"""A reference of recordings is worth fewer samples than it has: what a window may be compared with.

Windows of a stream are corrected for being alike (``edge_contract.autocorrelation``); a reference that was recorded as
a stream, and validated in that order, must be as well. Else the particular people, scenes and days of the reference
are taken for the law, and the other half of the very same recordings alarms. The counters see what is alike over a few
samples; what is alike over a long series, such as one writer's, the workstation saw and wrote into the profile.
"""

from dataclasses import replace
from typing import Any, Final, cast

from edge_contract.autocorrelation import reference_design
from edge_contract.counts import Counters
from edge_contract.profile import ReferenceProfile

__all__ = ["effective_reference"]

_KEPT: Final = "effective_reference"
_SCALED: Final = (
    "n_sampled", "cells", "confidence", "energy", "energy_sum", "energy_squares", "embedding_sum", "embedding_squares",
    "brightness", "contrast", "sharpness", "tables", "sensors",
)  # fmt: skip


def effective_reference(profile: ReferenceProfile) -> ReferenceProfile:
    """Return the profile with its counts divided by its design effect; itself where its samples are independent.

    Shares and means stay, m becomes m_eff. The counts are then no whole numbers: for tests, not for the wire.

    Example:
        >>> profile = ReferenceProfile.blank(("cat", "dog"))
        >>> effective_reference(profile) is profile
        True
    """
    kept = vars(profile).get(_KEPT)
    if kept is None:
        design = max(reference_design(profile.counters), profile.design)
        kept = profile if design <= 1 else replace(profile, counters=_divided(profile.counters, design))
        vars(profile)[_KEPT] = kept
    return cast(ReferenceProfile, kept)


def _divided(counters: Counters, design: float) -> Counters:
    return replace(counters, **{name: _scaled(getattr(counters, name), design) for name in _SCALED})


def _scaled(value: Any, design: float) -> Any:
    return tuple(_scaled(one, design) for one in value) if isinstance(value, tuple) else value / design
