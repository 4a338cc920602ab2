# SPDX-License-Identifier: Apache-2.0
"""The database's schema as numbered files ``NNNN_subject.sql``: each runs once, in order, in one transaction.

A file that was released never changes; a new subject takes a new number. What stands in them is understood by
SQLite and, after the translation of types in its adapter, by PostgreSQL.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources

from edge_contract.errors import StoreError

__all__ = ["Migration", "migrations", "missing"]


@dataclass(frozen=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    script: str


@cache
def migrations() -> tuple[Migration, ...]:
    """Return all steps in their order.

    Example:
        >>> [one.number for one in migrations()][:3]
        [1, 2, 3]
    """
    found = []
    for file in resources.files(__name__).iterdir():
        number, _, rest = file.name.partition("_")
        if file.name.endswith(".sql") and number.isdigit():
            found.append(Migration(int(number), rest.removesuffix(".sql"), file.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=lambda one: one.number))


def missing(done: set[int], where: str) -> list[Migration]:
    """Return the steps that a database lacks.

    Args:
        done: Numbers of the steps that it has.
        where: The database, for the message.

    Raises:
        StoreError: It has steps that this version does not know.

    Example:
        >>> [one.number for one in missing({2, 3}, "fleet.db")][:1]
        [1]
    """
    if unknown := done - {one.number for one in migrations()}:
        fix = "update Strop, or restore the backup that was made before the update"
        raise StoreError(f"schema {max(unknown)} is of a newer Strop", where=where, fix=fix)
    return [one for one in migrations() if one.number not in done]
