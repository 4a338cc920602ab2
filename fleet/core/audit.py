# SPDX-License-Identifier: Apache-2.0
"""The audit log: each entry carries the digest of the one before, so a changed or missing entry shows.

digest_n = SHA-256(canonical JSON of entry n, which holds digest_{n-1}); the first one follows 64 zeros.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from edge_contract import canonical
from edge_contract.errors import ContractError
from edge_contract.fields import Fields

__all__ = ["GENESIS", "AuditEntry", "append", "first_broken", "follows", "read_entry"]

GENESIS: Final = "0" * 64


@dataclass(frozen=True)
class AuditEntry:
    """Who did what to which thing, and when (seconds since 1970)."""

    number: int
    time: float
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    previous: str
    digest: str

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "time": self.time,
            "actor": self.actor,
            "action": self.action,
            "subject": self.subject,
            "detail": self.detail,
            "previous": self.previous,
            "digest": self.digest,
        }


def _digest(entry: dict[str, Any]) -> str:
    return canonical.digest(canonical.dumps({key: value for key, value in entry.items() if key != "digest"}))


def append(
    last: AuditEntry | None, *, time: float, actor: str, action: str, subject: str, detail: dict[str, Any]
) -> AuditEntry:
    """Return the entry that follows ``last``.

    Example:
        >>> one = append(None, time=1.0, actor="operator", action="rollout.start", subject="r1", detail={})
        >>> two = append(one, time=2.0, actor="operator", action="rollout.pause", subject="r1", detail={})
        >>> two.previous == one.digest, two.number
        (True, 2)
    """
    number, previous = (last.number + 1, last.digest) if last else (1, GENESIS)
    entry = AuditEntry(number, time, actor, action, subject, detail, previous, "")
    return AuditEntry(number, time, actor, action, subject, detail, previous, _digest(entry.to_json()))


def first_broken(entries: Iterable[AuditEntry]) -> int | None:
    """Return the number of the first entry that does not follow from the one before, or None if all hold.

    Example:
        >>> first_broken([append(None, time=1.0, actor="a", action="b", subject="c", detail={})]) is None
        True
    """
    previous = GENESIS
    for number, entry in enumerate(entries, start=1):
        if not follows(entry, number - 1, previous):
            return number
        previous = entry.digest
    return None


def follows(entry: AuditEntry, last: int, previous: str) -> bool:
    """True if an entry is the one after number ``last`` with digest ``previous``, and says what its digest says."""
    return entry.number == last + 1 and entry.previous == previous and entry.digest == _digest(entry.to_json())


def read_entry(document: Any) -> AuditEntry:
    """Return the entry that ``to_json`` wrote.

    Raises:
        ContractError: A field is missing or of the wrong type.
    """
    f = Fields(document, "audit entry", ContractError)
    texts = (f.text("actor"), f.text("action"), f.text("subject"))
    number, time = f.integer("number", minimum=1), f.number("time")
    return AuditEntry(number, time, *texts, f.object("detail"), f.text("previous"), f.text("digest"))
