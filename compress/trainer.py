# SPDX-License-Identifier: Apache-2.0
"""The training loop: seeded, clipped, cosine-annealed, and resumable at every epoch.

Theory of operation: every epoch draws its order, its augmentation and the global random state from
``(seed, epoch)`` alone. So a run that was interrupted and resumed goes through the same numbers as one that
was not, and a checkpoint needs no random state; an interruption costs at most the epoch under way.

Where ``torchrun`` started several processes, each draws the same order and the same augmentation, and takes its share
of every batch. A gradient is the mean over the whole batch, as in one process; only batch normalisation sees a share.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.checkpoint import read_checkpoint, write_checkpoint
from compress.ema import Average
from compress.losses import UNLABELLED, Loss, Objective, cross_entropy
from compress.placement import device_here, laid_out, placed
from compress.processes import here
from compress.steps.training import Training
from edge_contract import canonical
from edge_contract.errors import DataError, ModelError

__all__ = [
    "UNLABELLED",
    "AfterStep",
    "Augment",
    "EpochLog",
    "Loss",
    "Objective",
    "Progress",
    "Training",
    "cosine",
    "cross_entropy",
    "train",
]

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""(inputs [N,C,H,W], generator) → inputs of the same shape."""
Progress = Callable[["EpochLog"], None]
AfterStep = Callable[[nn.Module, int, int], None]
"""(model, number of the optimizer step from 1, number of all steps): may change the weights, such as hold zeros."""


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


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    training: Training,
    *,
    loss: Loss | None = None,
    extra: nn.Module | None = None,
    augment: Augment | None = None,
    unlabelled: Tensor | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    after_step: AfterStep | None = None,
) -> tuple[EpochLog, ...]:
    """Train a model in place and return the log of every epoch; the model ends in ``eval`` mode.

    It is trained on a GPU where there is one, in mixed precision, and comes back to where it was.

    Args:
        model: Trained in place.
        x: Inputs, float32 [N,C,H,W].
        y: Labels, int64 [N].
        training: Epochs, batch, optimizer, seed.
        loss: What is minimised; default cross-entropy on the labels.
        extra: A module that is trained along, such as the adapters of feature distillation.
        augment: Changes each batch.
        unlabelled: Further inputs, float32 [M,C,H,W], mixed into every epoch; ``loss`` is given the label -1.
        checkpoint: Written after every epoch; if it exists and was made by the same training, it is continued.
        progress: Told about each finished epoch.
        after_step: Called after each optimizer step.

    Raises:
        DataError: Inputs and labels do not fit, or hold NaN.
        ModelError: The loss became NaN or infinite.
    """
    x, y = _together(x, y, unlabelled)
    loop = _Loop(model, extra, training, loss or cross_entropy(training.label_smoothing), after_step)
    with _own_randomness(loop.device), placed(loop.everything(), loop.device, images=x.ndim == 4):
        logs = loop.start(len(x), checkpoint)
        for epoch in range(len(logs), training.epochs):
            value = loop.epoch(epoch, x, y, augment)
            logs = (*logs, EpochLog(epoch + 1, training.epochs, value))
            loop.keep(checkpoint, logs)
            if progress is not None and loop.processes.is_first:
                progress(logs[-1])
        loop.finish()
    return logs


def _together(x: Tensor, y: Tensor, unlabelled: Tensor | None) -> tuple[Tensor, Tensor]:
    if len(x) != len(y) or len(x) < 2:
        raise DataError(f"{len(x)} inputs and {len(y)} labels", where="training split", fix="give one label per input")
    if unlabelled is not None:
        if unlabelled.shape[1:] != x.shape[1:]:
            what = f"inputs {list(unlabelled.shape[1:])} without labels, {list(x.shape[1:])} with"
            raise DataError(what, where="training split", fix="preprocess both alike")
        x, y = torch.cat([x, unlabelled]), torch.cat([y, y.new_full((len(unlabelled),), UNLABELLED)])
    if not bool(torch.isfinite(x).all()):
        raise DataError("the inputs hold NaN or Inf", where="training split", fix="clean the data")
    return x, y


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


class _Loop:
    """The state of one training: model, optimizer, average, and the number of steps taken."""

    def __init__(
        self, model: nn.Module, extra: nn.Module | None, training: Training, loss: Loss, after_step: AfterStep | None
    ) -> None:
        self.model, self.extra, self.training, self.loss = model, extra, training, loss
        self.after_step = after_step
        self.processes, self.device = here(), device_here()
        self.is_mixed = training.mixed_precision and self.device.type == "cuda"
        self.step = self.steps = 0

    def modules(self) -> list[nn.Module]:
        """What is trained."""
        return [self.model] if self.extra is None else [self.model, self.extra]

    def everything(self) -> list[nn.Module]:
        """What must be on the device."""
        return [*self.modules(), self.loss] if isinstance(self.loss, Objective) else self.modules()

    def start(self, samples: int, checkpoint: Path | None) -> tuple[EpochLog, ...]:
        """Make optimizer and average of the placed model, and take up a checkpoint; return the epochs it holds."""
        training = self.training
        full, left = divmod(samples, training.batch)
        self.samples, self.steps = samples, training.epochs * (full + (left >= self._fewest()))
        self.parameters = [p for module in self.modules() for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise ModelError("no parameter asks for a gradient", where="training", fix="leave requires_grad on")
        decayed = [p for p in self.parameters if p.ndim > 1]
        spared = [p for p in self.parameters if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": training.weight_decay},
            {"params": spared, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=training.learning_rate)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.is_mixed)
        self.average = Average(self.model, training.ema) if training.ema else None
        return self._restore(checkpoint)

    def _fewest(self) -> int:
        """Samples that a batch must have: two for each process, because BN cannot normalise one."""
        return 2 * self.processes.count

    def epoch(self, epoch: int, x: Tensor, y: Tensor, augment: Augment | None) -> float:
        """Go once through the data and return the mean loss."""
        seed = self.training.seed * 100_003 + epoch
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed + 7919 * self.processes.rank)  # dropout and the like draw from the global state
        for module in self.modules():
            module.train()
        total, seen = 0.0, 0
        for rows in torch.split(torch.randperm(len(x), generator=generator), self.training.batch):
            if len(rows) < self._fewest():
                continue
            inputs = x[rows] if augment is None else augment(x[rows], generator)
            total += self._update(inputs, y[rows], epoch) * len(rows)
            seen += len(rows)
        return total / seen

    def _update(self, x: Tensor, y: Tensor, epoch: int) -> float:
        """Take one optimizer step on a batch and return its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.learning_rate * cosine(self.step, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        value = self._gradients(x, y, epoch)
        self.scaler.unscale_(self.optimizer)
        if self.training.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.training.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        if self.after_step is not None:
            self.after_step(self.model, self.step, self.steps)
        if self.average is not None:
            self.average.update(self.model)
        return value

    def _gradients(self, x: Tensor, y: Tensor, epoch: int) -> float:
        """Add up the gradients of this process's share, piece by piece, and of the other processes."""
        mine = self.processes.share(torch.arange(len(x)))
        pieces = min(self.training.accumulate, max(1, len(mine) // 2))
        number = torch.zeros((), device=self.device)
        for rows in torch.tensor_split(mine, pieces):
            part = slice(None) if len(rows) == len(x) else rows
            with torch.autocast(self.device.type, enabled=self.is_mixed):
                value = self.loss(self.model, laid_out(x[part], self.device), y[part].to(self.device))
            value = value * (len(rows) / len(x))
            torch.autograd.backward(self.scaler.scale(value))
            number += value.detach()
        self._exchange(number)
        found = float(number)
        if not math.isfinite(found):
            what = f"the loss became {found} in epoch {epoch + 1}"
            raise ModelError(what, where="training", fix="lower learning_rate or set clip_norm")
        return found

    def _exchange(self, number: Tensor) -> None:
        """Give every process the whole gradient, the mean of the normalisation statistics, and the whole loss."""
        if self.processes.count == 1:
            return
        statistics = [b for module in self.modules() for b in module.buffers() if b.is_floating_point()]
        for buffer in statistics:
            buffer.div_(self.processes.count)
        # A parameter that no loss reaches has no gradient in any process: all run the same program.
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.processes.add_up([number, *gradients, *statistics])

    def _key(self) -> str:
        shapes = {name: list(value.shape) for name, value in self.model.state_dict().items()}
        document = {"training": asdict(self.training), "shapes": shapes, "samples": self.samples}
        return canonical.digest(canonical.dumps(document))

    def _restore(self, checkpoint: Path | None) -> tuple[EpochLog, ...]:
        found = read_checkpoint(checkpoint, self._key()) if self.processes.is_first else None
        state = self.processes.from_first(found)
        if state is None:
            return ()
        self.model.load_state_dict(state["model"])
        if self.extra is not None:
            self.extra.load_state_dict(state["extra"])
        if isinstance(self.loss, Objective):
            self.loss.restore(state["kept"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load(state["average"])
        self.step = int(state["step"])
        return tuple(EpochLog(i + 1, self.training.epochs, loss) for i, loss in enumerate(state["losses"]))

    def keep(self, checkpoint: Path | None, logs: tuple[EpochLog, ...]) -> None:
        """Write a checkpoint, if there shall be one."""
        if checkpoint is None or not self.processes.is_first:
            return
        state = {
            "model": self.model.state_dict(),
            "extra": None if self.extra is None else self.extra.state_dict(),
            "kept": self.loss.kept() if isinstance(self.loss, Objective) else {},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state,
            "step": self.step,
            "losses": [log.loss for log in logs],
        }
        write_checkpoint(checkpoint, self._key(), state)

    def finish(self) -> None:
        """Give the model its final weights."""
        if self.average is not None:
            self.average.write_to(self.model)
        for module in self.modules():
            module.eval()
