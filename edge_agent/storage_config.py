# SPDX-License-Identifier: Apache-2.0
"""``[storage]`` of ``agent.toml``: what the disk of the data folder has to keep to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent import toml_words as words

__all__ = ["Limits", "read"]


@dataclass(frozen=True)
class Limits:
    """The limits of a disk.

    Attributes:
        least_free_mb, least_free_inodes: Stay free on the disk of the data folder.
        most_own_mb: The data folder takes no more; 0: no limit.
        reserve_mb: Size of the reserve; 0: none.
        write_budget_mb_per_day: Above it there is a warning, once a day; 0: none.
    """

    least_free_mb: int = 64
    least_free_inodes: int = 500
    most_own_mb: int = 4000
    reserve_mb: int = 4
    write_budget_mb_per_day: int = 500


def read(table: Mapping[str, Any], path: Path) -> Limits:
    """Return the limits of a table; raises UsageError at an unknown key, or a value that is no whole number."""
    defaults = vars(Limits())
    words.known(table, tuple(defaults), f"{path} [storage]")
    return Limits(**{name: words.whole(table, name, default, 0, path) for name, default in defaults.items()})
