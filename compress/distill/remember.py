# SPDX-License-Identifier: Apache-2.0
"""A teacher that answers the same input once: later epochs take its logits from memory.

With flips or small shifts, every image comes in few forms, and after some epochs the teacher is hardly asked any more.
With an augmentation that never repeats itself the memory fills up and is given up; nothing is lost but the look-ups.
What is remembered travels in the checkpoint: a resumed training gets the same bits.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Remembering"]

_LIMIT_BYTES = 64_000_000
# An odd multiplier for each place of an input, from a fixed seed: two inputs that differ in one place never collide,
# others do once in 2^64.
_SEED = 20_190_703


class Remembering(nn.Module):
    """Answers as the teacher does, and asks it only for inputs that are new.

    Args:
        teacher: Called in eval mode, without gradients; its answer is [N,K], of a map of answers [N,K,H,W].
        limit_bytes: What the answers and their keys may take; beyond it the memory is given up.

    Example:
        >>> teacher = nn.Linear(2, 3)
        >>> remembering, x = Remembering(teacher), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> first = remembering(x)
        >>> _ = teacher.weight.data.zero_()
        >>> torch.equal(remembering(x.flip(0)), first.flip(0)), remembering.asked
        (True, 2)
    """

    def __init__(self, teacher: nn.Module, limit_bytes: int = _LIMIT_BYTES) -> None:
        super().__init__()
        self.teacher, self.limit_bytes = teacher.eval(), limit_bytes
        self.asked = self.found = 0
        self._is_open = True
        self._places: dict[int, int] = {}
        self._answers = torch.empty(0, 0)
        self._factors = torch.empty(0, dtype=torch.int64)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return the teacher's logits for inputs [N, …], [N,K]."""
        if not self._is_open:
            answer: Tensor = self.teacher(x)
            return answer
        keys = self._keys(x)
        new = {key: row for row, key in enumerate(keys) if key not in self._places}
        self.found += len(keys) - len(new)
        if new:
            self._keep(list(new), self.teacher(x[list(new.values())]))
        answer = self._answers[[self._places[key] for key in keys]].to(x.device)
        if len(self._places) * self._bytes_each() > self.limit_bytes:
            self._is_open = False
            self._places, self._answers = {}, torch.empty(0, 0)
        return answer

    def _keys(self, x: Tensor) -> list[int]:
        """Return a 64-bit key of each input: the sum of its bits times the factors, modulo 2^64."""
        bits = x.detach().float().cpu().contiguous().flatten(1).view(torch.int32).long()
        if len(self._factors) != bits.shape[1]:
            generator = torch.Generator().manual_seed(_SEED)
            low, high = -(2**62), 2**62
            self._factors = 2 * torch.randint(low, high, (bits.shape[1],), generator=generator) + 1
        keys: list[int] = (bits * self._factors).sum(1).tolist()
        return keys

    def _keep(self, keys: list[int], answers: Tensor) -> None:
        used, needed = len(self._places), len(self._places) + len(keys)
        self.asked += len(keys)
        if needed > len(self._answers):
            most = needed + self.limit_bytes // (4 * answers[0].numel())  # more are never kept
            larger = torch.empty(min(max(1024, 2 * needed), most), *answers.shape[1:])
            if used:
                larger[:used] = self._answers[:used]
            self._answers = larger
        self._answers[used:needed] = answers.float().cpu()
        self._places.update(zip(keys, range(used, needed), strict=True))

    def _bytes_each(self) -> int:
        return 8 + 4 * math.prod(self._answers.shape[1:])

    def kept(self) -> dict[str, Any]:
        """Return the memory as tensors: keys [M] and answers [M,K]."""
        keys = torch.tensor(list(self._places), dtype=torch.int64)
        return {"keys": keys, "answers": self._answers[: len(keys)].clone(), "is_open": self._is_open}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take back what ``kept`` returned."""
        self._is_open = bool(kept["is_open"])
        self._answers = kept["answers"].clone()
        self._places = {key: place for place, key in enumerate(kept["keys"].tolist())}
