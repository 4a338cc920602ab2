# SPDX-License-Identifier: Apache-2.0
"""Several processes that train one model together: what ``torchrun`` starts, in the few words that training needs.

Every process runs the same program on the same data with the same seed. Each takes its share of every batch; gradients,
normalisation statistics and the loss are added up in one message a step, so that all hold the same model at any time.
Process 0 alone writes files. A program that ``torchrun`` did not start is the only process.
"""

import atexit
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

__all__ = ["Processes", "here"]


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: Its number, from 0.
        count: How many there are.

    Example:
        >>> Processes(1, 2).share(torch.arange(5)).tolist()
        [1, 3]
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """True for the one that writes files and speaks."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """Return this process's rows of a batch, [about N / count]."""
        return rows[self.rank :: self.count]

    @torch.no_grad()
    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message."""
        if self.count == 1 or not tensors:
            return
        message = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(message)
        for tensor, part in zip(tensors, torch.split(message, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def from_first(self, value: Any) -> Any:
        """Return what process 0 holds."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box)
        return box[0]

    def wait(self) -> None:
        """Return once all have come here."""
        if self.count > 1:
            distributed.barrier()


def here() -> Processes:
    """Return this process among those that ``torchrun`` started; the first call joins them (gloo, or NCCL on GPUs)."""
    if not distributed.is_available() or not (distributed.is_initialized() or distributed.is_torchelastic_launched()):
        return Processes()
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(_leave)
    return Processes(distributed.get_rank(), distributed.get_world_size())


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
