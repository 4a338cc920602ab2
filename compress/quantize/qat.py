# SPDX-License-Identifier: Apache-2.0
"""Quantization-aware training: a plan's network learns to live with its rounding, and ends in a plan again.

Theory of operation
-------------------
Training starts at the plan that calibration found (``calibrate``, ``decide``), never at random ranges, and passes
three stages. First everything learns, steps and ranges too. Then the ranges of the tensors are frozen at the scales
that ``decide`` makes of them (free of ties, so up to a few percent larger), and the weights adapt to those. At last the
steps of the weights are frozen in the same way: what is trained from then on is what ships.

BatchNorm is folded from the start. Its batch statistics are what makes quantization-aware training of small networks
unstable (they shift under the running ones, which the plan uses), and a trained network that moves by a small learning
rate has no need of them; and a scale per channel can only be learned for the weights that ship.

The default loss follows the float network's answers (``distill.soft_targets``), with a share for the labels. If the
result is worse on the validation rows than the plan it started from, that plan is returned, and its notes say so.

Reference:
    Esser et al., "Learned Step Size Quantization", 2020; Bhalgat et al., "LSQ+", 2020; Jacob et al., "Quantization and
    Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018, section 3 (folding).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.distill.soft_targets import combined
from compress.evaluate import Difference, paired_difference, predict
from compress.quantize import integer
from compress.quantize.calibrate import Observed
from compress.quantize.decide import decide
from compress.quantize.graph import FloatGraph
from compress.quantize.ladder import divergence
from compress.quantize.plan import QuantizationPlan
from compress.quantize.qat_module import FloatNetwork, QuantizedNetwork
from compress.quantize.step import Quantizer
from compress.sources import Tensors
from compress.steps.quantize import Settings
from compress.trainer import AfterStep, Augment, Loss, Progress, Training, train
from edge_contract.errors import DataError, UsageError

__all__ = ["ALPHA", "TEMPERATURE", "TRAINING", "Schedule", "learn", "qat", "retrained"]

TRAINING = Training(epochs=1, batch=128, learning_rate=1e-4, weight_decay=0.0)
"""What ``qat`` does unless it is told otherwise: a thirtieth of training's learning rate, a hundredth of a code."""
TEMPERATURE, ALPHA = 2.0, 0.9
"""Of the soft targets."""
Decide = Callable[[FloatGraph, Observed], QuantizationPlan]


@dataclass(frozen=True)
class Schedule:
    """When learning stops, as shares of all optimizer steps.

    Attributes:
        ranges: Scales and zero points of tensors.
        weights: Scales of weights.
    """

    ranges: float = 0.3
    weights: float = 0.6

    def __post_init__(self) -> None:
        if not 0.0 <= self.ranges <= self.weights <= 1.0:
            what = f"ranges freeze at {self.ranges} and weights at {self.weights} of the training"
            raise UsageError(what, fix="give shares of 0 to 1, ranges first")


def qat(
    model: nn.Module,
    calibration: Tensor,
    data: Tensors,
    validation: Tensors,
    *,
    settings: Settings | None = None,
    training: Training = TRAINING,
    teacher: nn.Module | None = None,
    augment: Augment | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    embedding: bool = True,
) -> QuantizationPlan:
    """Return the int8 plan of a model after quantization-aware training; the model is not changed, and traced once.

    Args:
        model: As for ``quantize``.
        calibration: Preprocessed samples, float32 [N, C, H, W] or [N, C, L], for the ranges to start from.
        data: What is trained on.
        validation: What decides whether training helped: the better plan of the two is returned.
        settings: Of the plan to start from; default those of ``quantize``.
        training, teacher, augment, checkpoint, progress: As for ``retrained``.
        embedding: As for ``quantize``.

    Raises:
        DataError: As ``quantize`` and ``train``; or no validation rows.
        ModelError: The loss became NaN or infinite, or as ``quantize``.
        UnsupportedOperatorError: A layer that integers cannot express.
        UsageError: Averaged weights (``ema``) were asked for.
    """
    return retrained(
        Quantizer(model, calibration, embedding=embedding),
        settings or Settings(),
        data,
        validation,
        training=training,
        teacher=teacher,
        augment=augment,
        checkpoint=checkpoint,
        progress=progress,
    )


def retrained(
    quantizer: Quantizer,
    settings: Settings,
    data: Tensors,
    validation: Tensors,
    *,
    training: Training = TRAINING,
    schedule: Schedule = Schedule(),
    teacher: nn.Module | None = None,
    loss: Loss | None = None,
    augment: Augment | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    tie_free: bool = True,
    fixed_point: bool = True,
) -> QuantizationPlan:
    """Return the better one of the plan that some settings decide and of what training makes of it.

    Args:
        quantizer: Of the model.
        settings: Observer, passes, wide layers; adaptive rounding is where the weights start.
        data, validation: As for ``qat``.
        training: Epochs, batch, learning rate: 0.0001 moves a weight by a hundredth of a code in each optimizer step.
        schedule: When ranges and steps are frozen.
        teacher: Whose answers are learned; default the float network itself.
        loss: What is minimised instead of soft targets and a share of labels.
        augment, checkpoint, progress: As for ``train``.
        tie_free, fixed_point: As for ``quantize``.
    """
    graph = quantizer.prepared(settings)
    start = quantizer.decide(graph, settings, tie_free=tie_free, fixed_point=fixed_point)
    again = partial(
        decide,
        samples=len(quantizer.calibration),
        embedding="embedding" in start.outputs,
        tie_free=tie_free,
        fixed_point=fixed_point,
        correct_bias=False,  # they are trained
    )
    return learn(
        graph,
        quantizer.observe(graph, settings),
        start,
        data,
        validation,
        decide=again,
        loss=loss or combined(teacher or FloatNetwork(graph), temperature=TEMPERATURE, alpha=ALPHA),
        training=training,
        schedule=schedule,
        augment=augment,
        checkpoint=checkpoint,
        progress=progress,
    )


def learn(
    graph: FloatGraph,
    observed: Observed,
    plan: QuantizationPlan,
    data: Tensors,
    validation: Tensors,
    *,
    decide: Decide,
    loss: Loss,
    training: Training = TRAINING,
    schedule: Schedule = Schedule(),
    augment: Augment | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> QuantizationPlan:
    """Return the better one of a plan and of what training makes of it; the last rung of a ladder.

    Args:
        graph: What the plan was decided from, with what earlier passes have set (steps, bits, wide layers).
        observed: The ranges that it was decided from.
        plan: Where training starts.
        data, validation: As for ``qat``.
        decide: Makes a plan of a graph and ranges, by the plan's own rules but without correcting biases: these are
            trained.
        loss: What is minimised.
        training, schedule, augment, checkpoint, progress: As for ``qat``.
    """
    if training.ema:
        fix = "set ema = 0: the average of frozen and unfrozen steps is neither"
        raise UsageError("quantization-aware training with averaged weights", fix=fix)
    if not len(validation):
        raise DataError("no samples", where="validation split", fix="keep some rows to judge the result by")
    network = QuantizedNetwork(graph, observed.ranges, plan)
    hook = _freezing(schedule, decide, observed)
    # float16 cannot hold 256 codes around a large number: fake quantization in mixed precision would train other codes
    training = replace(training, mixed_precision=False)
    train(
        network,
        data.x,
        data.y,
        training,
        loss=loss,
        augment=augment,
        checkpoint=checkpoint,
        progress=progress,
        after_step=hook,
    )
    trained = decide(network.trained(), replace(observed, ranges=network.ranges()))
    return _better(plan, trained, validation, FloatNetwork(graph))


def _freezing(schedule: Schedule, decide: Decide, observed: Observed) -> AfterStep:
    def after_step(model: nn.Module, step: int, steps: int) -> None:
        assert isinstance(model, QuantizedNetwork)
        weights = step >= schedule.weights * steps
        is_due = step >= schedule.ranges * steps and not model.ranges_frozen
        if is_due or (weights and not model.weights_frozen):
            plan = decide(model.trained(), replace(observed, ranges=model.ranges()))
            model.freeze(plan, weights=weights)

    return after_step


def _better(
    before: QuantizationPlan, after: QuantizationPlan, validation: Tensors, network: nn.Module
) -> QuantizationPlan:
    """Choose by right answers; where those cannot tell, by the distance of the answers from the float network's."""
    target = predict(network, validation.x)
    answers = [torch.from_numpy(integer.predict(plan, validation.x)) for plan in (before, after)]
    hits = [(answer.argmax(1) == validation.y).numpy() for answer in answers]
    far = [divergence(target, answer) for answer in answers]
    gain = paired_difference(hits[0], hits[1])
    figures = f"{gain} on {len(validation)} validation rows, KL to float {far[0]:.5f} before and {far[1]:.5f} after"
    if _is_worse(gain, closer=far[1] < far[0]):
        note = f"quantization-aware training gave {figures}: the plan from calibration is kept"
        return replace(before, notes=(*before.notes, note))
    notes = (*before.notes, *(note for note in after.notes if note not in before.notes))
    return replace(after, notes=(*notes, f"quantization-aware training gave {figures}"))


def _is_worse(gain: Difference, *, closer: bool) -> bool:
    return gain.high < 0.0 or (gain.points < 0.0 and not closer)
