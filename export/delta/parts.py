# SPDX-License-Identifier: Apache-2.0
"""A run of equal numbers in a model file."""

from dataclasses import dataclass

__all__ = ["Part"]


@dataclass(frozen=True, order=True)
class Part:
    """One run of equal elements.

    Attributes:
        offset, length: Bytes in the file.
        width: Bytes of an element: 1, 2, 4 or 8.
        name: Of its tensor, for people and for pairing.
    """

    offset: int
    length: int
    width: int
    name: str
