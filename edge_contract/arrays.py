# SPDX-License-Identifier: Apache-2.0
"""Arrays inside canonical JSON: base 85 needs 5 characters for 4 bytes, and none that JSON would escape."""

import base64
import struct
from collections.abc import Sequence

from edge_contract.errors import ProfileError

__all__ = ["floats", "raw", "text"]


def text(data: bytes) -> str:
    """Return bytes as base-85 text."""
    return base64.b85encode(data).decode()


def floats(values: Sequence[float]) -> str:
    """Return numbers as the text of little-endian float32.

    Example:
        >>> floats([0.5, -2.0]), raw(floats([0.5]), "edges").hex()
        ('0000#0002M', '0000003f')
    """
    return text(struct.pack(f"<{len(values)}f", *values))


def raw(encoded: str, name: str) -> bytes:
    """Return the bytes of base-85 text.

    Raises:
        ProfileError: Not base 85; the message names the field.
    """
    try:
        return base64.b85decode(encoded)
    except ValueError as error:
        raise ProfileError(f"not base 85: {error}", where=f"profile.{name}") from error
