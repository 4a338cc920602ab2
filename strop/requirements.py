# SPDX-License-Identifier: Apache-2.0
"""What each extra of this distribution asks for, and whether the installed versions satisfy it.

Standard library only: a bare install has neither ``packaging`` nor pip's internals.
"""

import re
from dataclasses import dataclass
from importlib import metadata

__all__ = ["Requirement", "extras_of", "installed_version", "satisfies"]

_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(\[[A-Za-z0-9,._-]+\])?\s*(?P<bounds>[<>=!~0-9.,*a-z ]*?)\s*"
    r"(;.*extra\s*==\s*['\"](?P<extra>.+?)['\"])?$"
)


@dataclass(frozen=True)
class Requirement:
    """One package with its bounds, such as ``numpy`` and ``>=2.0,<2.5``."""

    name: str
    bounds: str


def _parse(line: str) -> tuple[str, Requirement]:
    match = _LINE.match(line.strip())
    if match is None:
        return "", Requirement(line, "")
    return match["extra"] or "", Requirement(match["name"], match["bounds"].replace(" ", ""))


def extras_of(lines: list[str] | None = None) -> dict[str, tuple[Requirement, ...]]:
    """Return the requirements of each extra; ``""`` is the base install.

    Args:
        lines: ``Requires-Dist`` lines; None reads those of the installed ``strop``.

    Example:
        >>> extras_of(["typer>=0.15", "paho-mqtt<3,>=2.1; extra == 'agent'"])["agent"]
        (Requirement(name='paho-mqtt', bounds='<3,>=2.1'),)
        >>> extras_of(["psycopg[binary]<4,>=3.2; extra == 'postgres'"])["postgres"]
        (Requirement(name='psycopg', bounds='<4,>=3.2'),)
    """
    found: dict[str, list[Requirement]] = {}
    for line in metadata.requires("strop") or [] if lines is None else lines:
        extra, requirement = _parse(line)
        found.setdefault(extra, []).append(requirement)
    return {extra: tuple(requirements) for extra, requirements in found.items()}


def installed_version(package: str) -> str:
    """Return the installed version of a distribution, empty if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _numbers(version: str) -> tuple[int, ...]:
    """Return the release numbers; ``2.13.0+cpu`` and ``2.13.0rc1`` compare as 2.13.0."""
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else ()


def satisfies(version: str, bounds: str) -> bool:
    """Return True if an installed version keeps every bound.

    Example:
        >>> satisfies("2.13.0+cpu", "==2.13.0"), satisfies("2.5", ">=2.0,<2.5"), satisfies("", "")
        (True, False, False)
    """
    if not version:
        return False
    for bound in filter(None, bounds.split(",")):
        operator, wanted = re.match(r"([<>=!~]+)(.*)", bound).groups()  # type: ignore[union-attr]  # ours to write
        have, want = _numbers(version), _numbers(wanted)
        width = max(len(have), len(want))
        have, want = (numbers + (0,) * (width - len(numbers)) for numbers in (have, want))
        kept = {"==": have == want, ">=": have >= want, "<=": have <= want, "<": have < want, ">": have > want}
        if not kept.get(operator, have != want):
            return False
    return True
