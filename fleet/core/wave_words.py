# SPDX-License-Identifier: Apache-2.0
"""A wave in one line, as a form takes it: ``1``, ``10%``, ``rest``, ``cam-1,cam-2``, ``5 where site:a``."""

import re
from collections.abc import Sequence
from typing import Any, Final

from edge_contract.errors import UsageError
from edge_contract.topics import is_name

__all__ = ["read_waves", "wave_of"]

_FORM: Final = re.compile(
    r"(?P<shadow>shadow\s+)?(?:(?P<count>\d+)|(?P<percent>\d+(?:\.\d+)?)\s*%|(?P<rest>rest)|all)?"
    r"(?:\s*\bwhere\s+(?P<query>.+))?",
    re.DOTALL,
)
_FIX: Final = "write 1, 50%, rest, names with commas, or 'where' and a query"


def wave_of(text: str) -> dict[str, Any]:
    """Return the wave that a line says.

    Raises:
        UsageError: It says none.

    Example:
        >>> wave_of("1"), wave_of("2.5 %"), wave_of("rest"), wave_of("pi-1, pi-2")
        ({'count': 1}, {'percent': 2.5}, {'rest': True}, {'devices': ['pi-1', 'pi-2']})
        >>> wave_of("10% where site:a"), wave_of("shadow 5")
        ({'percent': 10.0, 'query': 'site:a'}, {'count': 5, 'kind': 'shadow'})
    """
    line = text.strip()
    if line.startswith("query:"):  # as the command line writes it
        line = f"where {line.removeprefix('query:')}"
    found = _FORM.fullmatch(line)
    if found is None or not line:
        names = [name.strip() for name in line.split(",")]
        if not all(map(is_name, names)):
            raise UsageError(f"{line[:60]!r} is not a wave", fix=_FIX)
        return {"devices": names}
    wave: dict[str, Any] = {}
    if found["count"]:
        wave["count"] = int(found["count"])
    if found["percent"]:
        wave["percent"] = float(found["percent"])
    if found["query"]:
        wave["query"] = found["query"].strip()
    if not wave:
        wave["rest"] = True
    if found["shadow"]:
        wave["kind"] = "shadow"
    return wave


def read_waves(lines: str) -> Sequence[dict[str, Any]]:
    r"""Return the waves of a text, one a line; raises UsageError as ``wave_of``, or if there is none.

    Example:
        >>> len(read_waves("1\n10%\n\nrest"))
        3
    """
    found = [wave_of(line) for line in lines.splitlines() if line.strip()]
    if not found:
        raise UsageError("no wave", fix=_FIX)
    return found
