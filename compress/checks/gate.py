# SPDX-License-Identifier: Apache-2.0
"""No bundle of a model whose checks failed, unless each is waived by name, with a reason that is written down."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compress.checks.outcome import CheckResult, failed_of
from compress.recipe_table import nearest
from edge_contract.errors import CheckError, UsageError

__all__ = ["Waiver", "gate", "waivers"]

MOST_REASON = 500


@dataclass(frozen=True)
class Waiver:
    """A failed check that a person answers for."""

    name: str
    reason: str


def waivers(names: Sequence[str], reasons: Sequence[str]) -> tuple[Waiver, ...]:
    """Return waivers of what a person typed: one reason for each name, or one for all.

    Raises:
        UsageError: No reason, or as many as fit to nothing.

    Example:
        >>> waivers(["gap", "by-site"], ["agreed with the plant"])[1]
        Waiver(name='by-site', reason='agreed with the plant')
    """
    told = [" ".join(reason.split())[:MOST_REASON] for reason in reasons]
    if (names and not told) or not all(told):
        raise UsageError("a waiver without a reason", fix='give --reason "why this may ship all the same"')
    if len(told) not in (len(names), min(1, len(names))):
        what = f"{len(told)} reasons for {len(names)} waivers"
        raise UsageError(what, fix="give each --waive its --reason, or one --reason for all")
    return tuple(Waiver(name, told[min(i, len(told) - 1)]) for i, name in enumerate(names))


def gate(checks: Sequence[CheckResult], waived: Sequence[Waiver], where: str) -> dict[str, Any]:
    """Return what a bundle's lineage says of the checks; an empty one where no check ran.

    Args:
        checks: Of the report.
        waived: What a person answers for.
        where: Name of the model, for messages.

    Raises:
        UsageError: A waiver for a check that does not exist, or that has passed.
        CheckError: A check failed and is not waived; names it, its figure, its limit and the way out.
    """
    failed, reasons = {one.name: one for one in failed_of(checks)}, {one.name: one.reason for one in waived}
    for name in reasons:
        if name not in failed:
            known = [one.name for one in checks]
            what = f"check '{name}' has passed" if name in known else f"there is no check '{name}'"
            fix = "leave --waive out" if name in known or not failed else nearest(name, sorted(failed))
            raise UsageError(what, where=where, fix=fix)
    open_ = [one for name, one in failed.items() if name not in reasons]
    if open_:
        raise CheckError(_words(open_), where=where, fix=_way_out(open_))
    if not checks:
        return {}
    passed = [one.name for one in checks if one.passed]
    return {"passed": passed, "waived": [_waived(one, reasons[name]) for name, one in failed.items()]}


def _words(failed: Sequence[CheckResult]) -> str:
    first = failed[0]
    more = f" (and {len(failed) - 1} more: {', '.join(one.name for one in failed[1:])})" if len(failed) > 1 else ""
    return f"check '{first.name}' failed: {first.figure_text}, asked {first.limit_text}; {first.words}{more}"


def _way_out(failed: Sequence[CheckResult]) -> str:
    waive = " ".join(f"--waive {one.name}" for one in failed)
    return f'mend the model or the data and run again, or answer for it: {waive} --reason "…"'


def _waived(check: CheckResult, reason: str) -> dict[str, Any]:
    said = {"name": check.name, "kind": check.kind, "figure": check.figure_text, "limit": check.limit_text}
    return {**said, "words": check.words, "reason": reason}
