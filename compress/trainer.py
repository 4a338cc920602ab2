# SPDX-License-Identifier: Apache-2.0
"""The training loop: seeded, clipped, cosine-annealed, and resumable at every epoch.

Theory of operation: every epoch draws its order, its augmentation and the global random state from
``(seed, epoch)`` alone. So a run that was interrupted and resumed goes through the same numbers as one that
was not, and a checkpoint needs no random state; an interruption costs at most the epoch under way.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.checkpoint import read_checkpoint, write_checkpoint
from compress.ema import Average
from compress.steps.training import Training
from edge_contract import canonical
from edge_contract.errors import DataError, ModelError

__all__ = ["Augment", "EpochLog", "Loss", "Progress", "Training", "cosine", "cross_entropy", "train"]

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, inputs float32 [N,C,H,W], labels int64 [N]) → scalar."""
Augment = Callable[[Tensor, torch.Generator], Tensor]
"""(inputs [N,C,H,W], generator) → inputs of the same shape."""
Progress = Callable[["EpochLog"], None]


@dataclass(frozen=True)
class EpochLog:
    """One finished epoch: its number from 1, the number of epochs, and the mean training loss."""

    epoch: int
    epochs: int
    loss: float


def cosine(step: int, steps: int, *, warmup: float = 0.05) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, then half a cosine to 0.

    Example:
        >>> [round(cosine(step, 40), 3) for step in (0, 1, 2, 21, 39)]
        [0.5, 1.0, 1.0, 0.5, 0.002]

    Reference:
        Loshchilov & Hutter 2017, "SGDR", equation 5.
    """
    ramp = max(1, round(warmup * steps))
    if step < ramp:
        return (step + 1) / ramp
    return 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, steps - ramp)))


def cross_entropy(label_smoothing: float = 0.0) -> Loss:
    """Return the loss of plain supervised training."""

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y, label_smoothing=label_smoothing)

    return loss


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    training: Training,
    *,
    loss: Loss | None = None,
    extra: nn.Module | None = None,
    augment: Augment | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> tuple[EpochLog, ...]:
    """Train a model in place and return the log of every epoch; the model ends in ``eval`` mode.

    Args:
        model: Trained in place.
        x: Inputs, float32 [N,C,H,W].
        y: Labels, int64 [N].
        training: Epochs, batch, optimizer, seed.
        loss: What is minimised; default cross-entropy on the labels.
        extra: A module that is trained along, such as the adapters of feature distillation.
        augment: Changes each batch.
        checkpoint: Written after every epoch; if it exists and was made by the same training, it is continued.
        progress: Told about each finished epoch.

    Raises:
        DataError: Inputs and labels do not fit, or hold NaN.
        ModelError: The loss became NaN or infinite.
    """
    _check(x, y)
    loop = _Loop(model, extra, training, steps=training.epochs * _batches(len(x), training.batch))
    logs = loop.restore(checkpoint)
    objective = loss or cross_entropy(training.label_smoothing)
    with _own_randomness():
        for epoch in range(len(logs), training.epochs):
            value = loop.epoch(epoch, x, y, objective, augment)
            logs = (*logs, EpochLog(epoch + 1, training.epochs, value))
            loop.keep(checkpoint, logs)
            if progress is not None:
                progress(logs[-1])
    loop.finish()
    return logs


def _check(x: Tensor, y: Tensor) -> None:
    if len(x) != len(y) or len(x) < 2:
        raise DataError(f"{len(x)} inputs and {len(y)} labels", where="training split", fix="give one label per input")
    if not bool(torch.isfinite(x).all()):
        raise DataError("the inputs hold NaN or Inf", where="training split", fix="clean the data")


def _batches(samples: int, batch: int) -> int:
    full, left = divmod(samples, batch)
    return full + (left > 1)


@contextmanager
def _own_randomness() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


class _Loop:
    """The state of one training: model, optimizer, average, and the number of steps taken."""

    def __init__(self, model: nn.Module, extra: nn.Module | None, training: Training, *, steps: int) -> None:
        self.model, self.extra, self.training, self.steps = model, extra, training, steps
        self.step = 0
        self.parameters = [p for module in self._modules() for p in module.parameters() if p.requires_grad]
        decayed = [p for p in self.parameters if p.ndim > 1]
        spared = [p for p in self.parameters if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": training.weight_decay},
            {"params": spared, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=training.learning_rate)
        self.average = Average(model, training.ema) if training.ema else None

    def _modules(self) -> list[nn.Module]:
        return [self.model] if self.extra is None else [self.model, self.extra]

    def epoch(self, epoch: int, x: Tensor, y: Tensor, loss: Loss, augment: Augment | None) -> float:
        seed = self.training.seed * 100_003 + epoch
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # dropout and the like draw from the global state
        for module in self._modules():
            module.train()
        order = torch.randperm(len(x), generator=generator)
        total, seen = 0.0, 0
        for rows in torch.split(order, self.training.batch):
            if len(rows) < 2:
                continue
            inputs = x[rows] if augment is None else augment(x[rows], generator)
            total += self._update(loss(self.model, inputs, y[rows]), epoch) * len(rows)
            seen += len(rows)
        return total / seen

    def _update(self, value: Tensor, epoch: int) -> float:
        number = float(value.detach())
        if not math.isfinite(number):
            what = f"the loss became {number} in epoch {epoch + 1}"
            raise ModelError(what, where="training", fix="lower learning_rate or set clip_norm")
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.learning_rate * cosine(self.step, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        if self.training.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.training.clip_norm)
        self.optimizer.step()
        self.step += 1
        if self.average is not None:
            self.average.update(self.model)
        return number

    def _key(self) -> str:
        shapes = {name: list(value.shape) for name, value in self.model.state_dict().items()}
        return canonical.digest(canonical.dumps({"training": asdict(self.training), "shapes": shapes}))

    def restore(self, checkpoint: Path | None) -> tuple[EpochLog, ...]:
        state = read_checkpoint(checkpoint, self._key())
        if state is None:
            return ()
        self.model.load_state_dict(state["model"])
        if self.extra is not None:
            self.extra.load_state_dict(state["extra"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load(state["average"])
        self.step = int(state["step"])
        return tuple(EpochLog(i + 1, self.training.epochs, loss) for i, loss in enumerate(state["losses"]))

    def keep(self, checkpoint: Path | None, logs: tuple[EpochLog, ...]) -> None:
        if checkpoint is None:
            return
        state = {
            "model": self.model.state_dict(),
            "extra": None if self.extra is None else self.extra.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state,
            "step": self.step,
            "losses": [log.loss for log in logs],
        }
        write_checkpoint(checkpoint, self._key(), state)

    def finish(self) -> None:
        if self.average is not None:
            self.average.write_to(self.model)
        for module in self._modules():
            module.eval()
