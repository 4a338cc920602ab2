# SPDX-License-Identifier: Apache-2.0
"""What differs between databases, as the store sees it: how one is opened, and what its errors mean."""

from contextlib import AbstractContextManager
from typing import Protocol

from fleet.adapters.database import Connection

__all__ = ["Engine", "Session"]


class Session(Protocol):
    """One open connection with its transaction."""

    @property
    def db(self) -> Connection:
        """What jobs speak to."""
        ...

    def begin(self) -> None:
        """Start a transaction that may write."""
        ...

    def commit(self) -> None:
        """Make it durable; after the return it survives a power cut."""
        ...

    def undo(self) -> None:
        """Roll back; never raises."""
        ...

    def close(self) -> None:
        """Close the connection; never raises."""
        ...


class Engine(Protocol):
    """What differs between databases."""

    @property
    def where(self) -> str:
        """The file or address, without a password."""
        ...

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What the driver raises."""
        ...

    def open(self, *, write: bool) -> Session:
        """Connect; a session that writes finds the schema complete.

        Raises:
            StoreError: Not a database of ours, or written by a newer Strop.
        """
        ...

    def is_passing(self, error: Exception) -> bool:
        """True if the same work may succeed on another attempt: the server went away, or two writers met."""
        ...

    def has_committed(self, session: Session, lost: Session) -> bool:
        """Return whether the last transaction of a session that is lost was committed; asked on a new one."""
        ...

    def advice(self, error: Exception) -> str:
        """Return what a person can do about an error."""
        ...

    def turn(self, *, shared: bool) -> AbstractContextManager[None]:
        """Hold the files of bundles among processes: together with others that share them, or alone.

        Raises:
            StoreError: Somebody holds them for too long.
        """
        ...
