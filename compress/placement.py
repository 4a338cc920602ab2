# SPDX-License-Identifier: Apache-2.0
"""Where and in which memory order a model is trained; afterwards everything is where it was.

Images are held with channels last: convolutions of small networks train about twice as fast so on processors with
AVX, and on GPUs with tensor cores. The values of a model do not depend on it, the last bits of a training do.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["device_here", "laid_out", "placed"]


def device_here() -> torch.device:
    """Return the GPU of this process where there is one (``torchrun`` gives each its own), else the processor."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def laid_out(x: Tensor, device: torch.device) -> Tensor:
    """Return inputs on a device, images [N,C,H,W] with channels last in memory.

    Example:
        >>> laid_out(torch.zeros(2, 3, 4, 5), torch.device("cpu")).stride()
        (60, 1, 15, 3)
    """
    order = torch.channels_last if x.ndim == 4 else torch.contiguous_format
    return x.to(device, non_blocking=True).contiguous(memory_format=order)


@contextmanager
def placed(modules: Sequence[nn.Module], device: torch.device, *, images: bool) -> Iterator[None]:
    """Hold modules on a device and, for images, with channels last; then put them back where they were."""
    homes = [_home(module) for module in modules]
    for module in modules:
        _move(module, device, torch.channels_last if images else torch.contiguous_format)
    try:
        yield
    finally:
        for module, home in zip(modules, homes, strict=True):
            _move(module, home, torch.contiguous_format)


def _home(module: nn.Module) -> torch.device:
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _move(module: nn.Module, device: torch.device, order: torch.memory_format) -> None:
    module.to(device)
    module.to(memory_format=order)  # type: ignore[call-overload]
