# SPDX-License-Identifier: Apache-2.0
"""Results that survive an interruption: each is kept under a digest of everything that it depends on.

A row of yesterday is taken again only if network, data, setting, pins and the code that made it are today's.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.environments import ROOT
from edge_contract.errors import DataError

__all__ = ["BUILD", "code_digest", "digest", "once", "read_json", "write_json"]

BUILD: Final = ROOT / "build/peers"


def digest(parts: Iterable[bytes | str]) -> str:
    """Return a digest of parts in order; where one part ends and the next begins counts.

    Example:
        >>> digest(["ab", "c"]) == digest(["a", "bc"])
        False
    """
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:24]


def code_digest(*paths: Path) -> str:
    """Return a digest of source files, and of all ``.py`` files below folders.

    Raises:
        DataError: One is missing, or a folder without any: a digest of nothing would never change.
    """
    if missing := [path for path in paths if not path.is_file() and not any(path.rglob("*.py"))]:
        raise DataError("no source code", where=str(missing[0]), fix="name what the row depends on now")
    files = [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    return digest(part for file in files for part in (file.name, file.read_bytes()))


def once(kind: str, key: str, make: Callable[[Path], dict[str, Any]], *, root: Path = BUILD) -> dict[str, Any]:
    """Return what ``make`` returned for this key, from the disk if it finished before.

    Args:
        kind: Folder of such results.
        key: Digest of everything that the result depends on.
        make: Is given a folder for its files; its answer is written last, so that half a result is none.
        root: Where results lie.
    """
    folder = root / kind / key
    result = folder / "result.json"
    if result.exists():
        return read_json(result)
    folder.mkdir(parents=True, exist_ok=True)
    made = make(folder)
    write_json(result, made)
    return made


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        DataError: There is none.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"no JSON object: {error}", where=str(path), fix="make it again") from error
    return found


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON object so that a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
