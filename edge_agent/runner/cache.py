# SPDX-License-Identifier: Apache-2.0
"""Answers that need not be computed again: a bounded memory of inputs by their hash.

Worth it where the same input really comes again (requests of other programs, a still camera without noise); a hash of
224 × 224 × 3 bytes takes about 0.2 ms, so a model faster than that does not profit.
"""

from collections import OrderedDict
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.answers import Answer
from edge_contract.errors import UsageError

__all__ = ["MAX_ENTRIES", "ResultCache"]

MAX_ENTRIES = 100_000


class ResultCache:
    """The newest answers of one model, least recently used out first. Not thread-safe.

    Args:
        entries: Most answers that are kept.

    Raises:
        UsageError: Less than one entry, or more than ``MAX_ENTRIES``.
    """

    def __init__(self, entries: int) -> None:
        if not 1 <= entries <= MAX_ENTRIES:
            raise UsageError(f"a cache of {entries} answers", where="cache", fix=f"use 1 to {MAX_ENTRIES}")
        self._entries, self._known = entries, OrderedDict[bytes, Answer]()
        self.hits = self.lookups = 0

    @staticmethod
    def key(raw: NDArray[Any]) -> bytes:
        """Return what tells inputs apart: type, shape and every byte (128 bits of BLAKE2b)."""
        made = blake2b(f"{raw.dtype.str}{raw.shape}".encode(), digest_size=16)
        made.update(np.ascontiguousarray(raw).data)
        return made.digest()

    def get(self, key: bytes) -> Answer | None:
        """Return the answer of an input that was seen, or None; counts the look-up."""
        self.lookups += 1
        found = self._known.get(key)
        if found is not None:
            self.hits += 1
            self._known.move_to_end(key)
        return found

    def put(self, key: bytes, answer: Answer) -> None:
        """Keep an answer."""
        self._known[key] = answer
        if len(self._known) > self._entries:
            self._known.popitem(last=False)

    def __len__(self) -> int:
        return len(self._known)
