# SPDX-License-Identifier: Apache-2.0
"""How many threads PyTorch computes with.

Two reasons to ask for one. Sums are split by thread, so their last bits, and after many steps whole weights, depend
on the number. And small networks lose by threads on a busy machine, where each waits for the slowest at every layer:
an epoch of the digits teacher took 2.8 s with one thread and 24 s with two, on two cores at load 3.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["threads"]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with this many threads inside; 0 leaves the number as it is.

    Example:
        >>> before = torch.get_num_threads()
        >>> with threads(1):
        ...     torch.get_num_threads()
        1
        >>> torch.get_num_threads() == before
        True
    """
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
