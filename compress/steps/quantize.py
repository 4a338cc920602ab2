# SPDX-License-Identifier: Apache-2.0
"""The ``quantize`` step: float becomes integers, by a plan or, where no plan can hold the network, by its weights."""

from dataclasses import dataclass, field
from typing import ClassVar, Final

from compress.recipe_table import Table
from compress.steps.training import Training, read_training

__all__ = ["METHODS", "OBSERVERS", "ROUNDINGS", "Mixed", "Quantize", "Settings", "read_quantize"]

METHODS: Final = ("static-int8", "qat-int8", "dynamic-int8", "weight-only-int8", "weight-only-int4", "float16")
PLANNED: Final = ("static-int8", "qat-int8")
OBSERVERS: Final = ("rounding-error", "squared-error", "percentile", "min-max", "entropy", "moving-average")
ROUNDINGS: Final = ("nearest", "adaptive")


@dataclass(frozen=True)
class Settings:
    """How a plan is decided; what the accuracy ladder varies.

    Attributes:
        observer: What decides activation ranges on the calibration split.
        percentile: For the percentile observer.
        equalize: Whether channel ranges are equalized across layers first.
        correct_bias: Whether the mean shift of rounded weights is taken off the biases.
        rounding: ``nearest``, or ``adaptive``: each weight up or down, whichever keeps the layer's output.
        wide: Layers that are computed in float32 between int8 tensors.
        bits: Layer → ``4``, ``8`` or ``float``, where they differ (``quantize.mixed`` chooses them).
    """

    observer: str = "rounding-error"
    percentile: float = 99.99
    equalize: bool = False
    correct_bias: bool = True
    rounding: str = "nearest"
    wide: tuple[str, ...] = ()
    bits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Mixed:
    """Mixed precision: each layer 4 bits, 8 bits or float, so that the least is lost within ``size_kb`` of weights."""

    size_kb: float
    bits: tuple[str, ...] = ("4", "8")


@dataclass(frozen=True)
class Quantize:
    """Quantization; the last step.

    Attributes:
        method: ``static-int8`` and ``qat-int8`` make a plan; the others keep the float graph and round its weights.
        settings: Of the plan.
        mixed: A budget for bits per layer; None takes 8 for all.
        ladder: Whether a missed ``max_drop`` is cured by trying harder.
        smooth: Share of the difficulty that moves from activations to weights before ``dynamic-int8``, 0 to 1; None
            leaves both as they are.
        qat: The short training of ``qat-int8`` and of the ladder's last rung.
        max_drop: As in ``Train``.
    """

    kind: ClassVar[str] = "quantize"
    method: str = "static-int8"
    settings: Settings = field(default_factory=Settings)
    mixed: Mixed | None = None
    ladder: bool = True
    qat: Training = field(default_factory=lambda: Training(epochs=1, batch=128, learning_rate=1e-4, weight_decay=0.0))
    max_drop: float | None = None
    smooth: float | None = None


def read_quantize(table: Table) -> Quantize:
    """Return a ``quantize`` step."""
    method = table.text("method", "static-int8", among=METHODS)
    settings = Settings(
        table.text("observer", "rounding-error", among=OBSERVERS),
        table.number("percentile", 99.99, low=50.01, high=100.0),
        table.flag("equalize", default=False),
        table.flag("correct_bias", default=True),
        table.text("rounding", "nearest", among=ROUNDINGS),
        table.texts("wide"),
    )
    mixed = _mixed(table) if "mixed" in table else None
    ladder = table.flag("ladder", default=True)
    qat = table.table("qat", {})
    training = read_training(qat, epochs=1, learning_rate=1e-4, batch=128, weight_decay=0.0)
    qat.done()
    smooth = table.number("smooth", None, high=1.0)
    step = Quantize(method, settings, mixed, ladder, training, table.number("max_drop", None, high=100.0), smooth)
    if smooth is not None and method != "dynamic-int8":
        raise table.refuse("smooth", f"'{method}' rounds no activations while it runs", 'use method = "dynamic-int8"')
    if method not in PLANNED and (settings != Settings() or mixed is not None):
        key = "mixed" if mixed is not None else next(k for k in vars(settings) if k in table)
        raise table.refuse(key, f"'{method}' makes no plan", f"remove it, or use one of {', '.join(PLANNED)}")
    return step


def _mixed(table: Table) -> Mixed:
    inner = table.table("mixed")
    found = Mixed(inner.number("size_kb", low=0.001), inner.texts("bits", ("4", "8")))
    inner.done()
    if not found.bits or set(found.bits) - {"4", "8", "float"}:
        raise inner.refuse("bits", f"{list(found.bits)}", "choose among ['4', '8', 'float']")
    return found
