# SPDX-License-Identifier: Apache-2.0
"""Which names a team's files have in TUF's metadata, so that a signature is good for some models and no others.

The fleet's own targets key signs files as ``blobs/<sha256>``. A team signs them as ``models/<model>/<sha256>``, and the
fleet's targets delegate ``models/<pattern>/*`` to its key. A device that is ordered to install a model asks for names
of that very model, so a team's signature under another model's name is never looked at, and the manifest must say the
same model as the order.
"""

import fnmatch
import re
from collections.abc import Iterable
from typing import Final

from edge_contract.software import SOFTWARE
from edge_contract.topics import is_name

__all__ = ["MODELS", "is_pattern", "is_team", "may_sign", "name_of", "path_of", "split"]

MODELS: Final = "models"
_TEAM: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_RESERVED: Final = frozenset({"root", "targets", "snapshot", "timestamp", "online", "mirrors"})
_PATTERN: Final = re.compile(r"[A-Za-z0-9._*?-]{1,63}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def is_team(name: str) -> bool:
    """True if a delegated role may be called so: it becomes a file's name and stands beside TUF's own roles.

    Example:
        >>> is_team("vision"), is_team("targets"), is_team("../x")
        (True, False, False)
    """
    return _TEAM.fullmatch(name) is not None and name not in _RESERVED


def is_pattern(text: str) -> bool:
    """True if text is a pattern on model names: their characters, ``*`` and ``?``.

    Example:
        >>> is_pattern("vision-*"), is_pattern("vision/*"), is_pattern("")
        (True, False, False)
    """
    return _PATTERN.fullmatch(text) is not None


def name_of(model: str, sha256: str) -> str:
    """Return the name under which a team signs a file of a model.

    Example:
        >>> name_of("vision-1", "ab")
        'models/vision-1/ab'
    """
    return f"{MODELS}/{model}/{sha256}"


def path_of(pattern: str) -> str:
    """Return TUF's path pattern for a pattern on model names.

    Example:
        >>> path_of("vision-*")
        'models/vision-*/*'
    """
    return f"{MODELS}/{pattern}/*"


def split(name: str) -> tuple[str, str] | None:
    """Return model and SHA-256 of a name that a team may use, None for any other.

    Example:
        >>> split("models/vision-1/" + "a" * 64) == ("vision-1", "a" * 64), split("blobs/" + "a" * 64)
        (True, None)
    """
    head, _, rest = name.partition("/")
    model, _, sha256 = rest.partition("/")
    fits = head == MODELS and is_name(model) and _SHA256.fullmatch(sha256)
    return (model, sha256) if fits else None


def may_sign(paths: Iterable[str], model: str) -> bool:
    """True if delegated paths cover a model. The agent's own software is nobody's but the fleet's.

    Example:
        >>> may_sign(["models/vision-*/*"], "vision-1"), may_sign(["models/vision-*/*"], "audio")
        (True, False)
    """
    name = name_of(model, "x")
    fits = any(path.count("/") == 2 and _fits(name, path) for path in paths)
    return fits and model != SOFTWARE


def _fits(name: str, path: str) -> bool:
    return all(fnmatch.fnmatchcase(a, b) for a, b in zip(name.split("/"), path.split("/"), strict=True))
