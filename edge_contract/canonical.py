# SPDX-License-Identifier: Apache-2.0
"""Canonical JSON: one byte string for one value, so that digests and signatures are stable.

UTF-8, keys sorted, no spaces, no NaN; a float is written as its ``float.hex()`` string. A reader that
expects a float accepts the hex string and, for hand-written files, a JSON number.
"""

import hashlib
import json
import math
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

from edge_contract.errors import ContractError

__all__ = ["as_float", "digest", "dumps", "loads"]

# What float.hex() writes and nothing else: float.fromhex("0.5") is 0.3125, a silent mistake of a hand-written file.
_HEX_FLOAT: Final = re.compile(r"-?0x[01]\.[0-9a-f]+p[+-][0-9]+\Z")

MAX_DEPTH: Final = 100
"""Lists and objects within one another. Python 3.11 counts them itself; from 3.12 on its reader goes thousands deep,
and what walks through the result afterwards does not.
"""
_COUNTS: Final = sys.version_info >= (3, 12)
_TEXT: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_AS_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ContractError(f"{value} has no canonical form", where=where, fix="leave the field out")
        return value.hex()
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ContractError(f"key {key!r} is not text", where=where)
        return {key: _plain(value[key], f"{where}.{key}") for key in value}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise ContractError(f"a {type(value).__name__} has no canonical form", where=where)


def dumps(value: Any) -> bytes:
    """Return the canonical bytes of a JSON-like value.

    Raises:
        ContractError: The value holds NaN, an infinity, a key that is not text, half of a surrogate pair or a
            foreign type, or it is nested too deeply.

    Example:
        >>> dumps({"b": 0.5, "a": [1, True, None]})
        b'{"a":[1,true,null],"b":"0x1.0000000000000p-1"}'
    """
    try:
        plain = _plain(value, "$")
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ContractError("a text has no UTF-8 form", where="$") from error
    except RecursionError as error:
        raise ContractError("nested too deeply", where="$") from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = dict(pairs)
    if len(found) == len(pairs):
        return found
    found = {}
    for key, value in pairs:
        if key in found:
            raise ContractError(f"key {key!r} stands twice in one JSON object")
        found[key] = value
    return found


def _is_deep(data: bytes) -> bool:
    """Return whether JSON is nested too deeply; each round takes the innermost brackets away."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False
    left = _TEXT.sub(b"", data).translate(_AS_SQUARE, _NO_BRACKETS)
    for depth in range(MAX_DEPTH + 1):
        shorter = left.replace(b"[]", b"")
        if len(shorter) == len(left):
            return depth + left.count(b"[") > MAX_DEPTH
        left = shorter
    return True


def loads(data: bytes | str, *, where: str = "$") -> Any:
    """Return the value of JSON bytes; floats stay hex strings until a reader asks for them.

    Raises:
        ContractError: Not UTF-8, not JSON, a key twice in one object, nested too deeply, or NaN.

    Example:
        >>> loads(b'{"a":[1,true,null]}')
        {'a': [1, True, None]}
    """

    def refuse(text: str) -> Any:
        raise ContractError(f"{text} is not JSON", where=where)

    try:
        text = data.decode() if isinstance(data, bytes) else data
        if _COUNTS and _is_deep(data if isinstance(data, bytes) else data.encode(errors="replace")):
            raise ContractError("nested too deeply", where=where)
        return json.loads(text, parse_constant=refuse, object_pairs_hook=_no_duplicates)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ContractError(f"not JSON: {error}", where=where) from error
    except RecursionError as error:
        raise ContractError("nested too deeply", where=where) from error
    except ValueError as error:  # Python's own guard against integers of thousands of digits
        raise ContractError("a number has too many digits", where=where) from error


def as_float(value: Any, *, where: str = "$") -> float:
    """Return the float behind a hex string or a JSON number.

    Raises:
        ContractError: Neither, or not finite.

    Example:
        >>> as_float("0x1.0000000000000p-1"), as_float(2)
        (0.5, 2.0)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ContractError(f"expected a number, found {value!r}", where=where)
    if isinstance(value, str) and not _HEX_FLOAT.match(value):
        raise ContractError(f"expected a number, found {value[:60]!r}", where=where)
    try:
        number = float.fromhex(value) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError) as error:
        raise ContractError(f"expected a number, found {value!r}", where=where) from error
    if not math.isfinite(number):
        raise ContractError(f"expected a finite number, found {value!r}", where=where)
    return number


def digest(data: bytes) -> str:
    """Return the SHA-256 of bytes as 64 lower-case hexadecimal digits.

    Example:
        >>> digest(b"")[:16]
        'e3b0c44298fc1c14'
    """
    return hashlib.sha256(data).hexdigest()
