# SPDX-License-Identifier: Apache-2.0
"""What the closed descriptions share: bounded numbers, mean and std, and no unknown key.

Every size that makes a device allocate memory is bounded here or beside its key: a larger one is a slip, or an attack.
"""

from typing import Final

from edge_contract.fields import Fields

__all__ = ["MAX_LENGTH", "bounded", "check_factors", "refuse_unknown"]

MAX_LENGTH: Final = 1 << 24
"""Samples of one window or clip: more than four minutes at 64 kHz."""


def bounded(fields: Fields, key: str, most: int, *default: int) -> int:
    """Return an integer field of 1 to ``most``."""
    value = fields.integer(key, *default, minimum=1)
    if value > most:
        raise fields.error(f"{value} is above {most}", where=f"{fields.where}.{key}")
    return value


def check_factors(fields: Fields, lengths: tuple[int, ...], of: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return ``mean`` and ``std`` of a description; each must have one of the lengths, and no deviation may be 0."""
    mean, std = fields.numbers("mean", [0.0]), fields.numbers("std", [1.0])
    for key, values in (("mean", mean), ("std", std)):
        if len(values) not in lengths:
            raise fields.error(f"{len(values)} values for {of}", where=f"{fields.where}.{key}")
    if 0.0 in std:
        raise fields.error("a standard deviation of 0", where=f"{fields.where}.std")
    return mean, std


def refuse_unknown(fields: Fields) -> None:
    """Raise for the first key that nobody read: a step that one does not know would change every answer."""
    for key in sorted(fields.rest()):
        raise fields.error(f"unknown key '{key}'", where=fields.where, fix="correct its spelling, or update Strop")
