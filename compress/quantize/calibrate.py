# SPDX-License-Identifier: Apache-2.0
"""Run a folded graph over the calibration samples and observe the range of every tensor."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.quantize.graph import FloatGraph, evaluate
from compress.quantize.observers import Observer, make_observer
from edge_contract.errors import DataError, ModelError

__all__ = ["FEW_SAMPLES", "Observed", "Ranges", "calibrate", "check_samples"]

FEW_SAMPLES = 64  # fewer give ranges that depend on luck; the report says so
_MOST_SAMPLES = 16  # evaluated at once: enough that PyTorch's overhead does not show
_MOST_VALUES = 2**18  # in the largest tensor of a batch: 1 MiB, so that peak memory is that of PyTorch itself
Ranges = dict[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Observed:
    """What calibration saw of each tensor: its range, and the mean of each channel [C] or feature, float64."""

    ranges: Ranges
    means: dict[str, Tensor]


def check_samples(samples: Tensor) -> tuple[str, ...]:
    """Return warnings about a calibration set [N, C, H, W] or [N, C, L].

    Raises:
        DataError: Not float32 of three or four dimensions, empty, not finite (names the sample), or constant.
    """
    where = "calibration data"
    if samples.dim() not in (3, 4) or samples.dtype != torch.float32:
        what = f"{str(samples.dtype).removeprefix('torch.')} of shape {list(samples.shape)}"
        fix = "give float32 of shape [N, C, H, W] or [N, C, L], already preprocessed"
        if samples.dim() == 2:
            fix = "give [N, C, H, W] or [N, C, L]; a network of flat inputs takes 'dynamic-int8' or 'weight-only-int8'"
        raise DataError(what, where=where, fix=fix)
    if samples.numel() == 0:
        raise DataError("no samples", where=where, fix="give at least 64 typical inputs")
    parts = torch.split(samples, _MOST_SAMPLES)  # all at once would need the memory of the samples three times over
    finite = torch.cat([torch.isfinite(part).flatten(1).all(1) for part in parts])
    if not finite.all():
        raise DataError("NaN or an infinity", where=f"{where}, sample {int((~finite).nonzero()[0])}", fix="drop it")
    if samples.min() == samples.max():
        raise DataError("all values are equal", where=where, fix="give typical inputs, already preprocessed")
    count = samples.shape[0]
    if count < FEW_SAMPLES:
        return (f"only {count} calibration samples: ranges may be too narrow; give at least {FEW_SAMPLES}",)
    return ()


def calibrate(
    graph: FloatGraph, samples: Tensor, *, observer: str = "rounding-error", percentile: float = 99.99
) -> Observed:
    """Return the range and the means of every tensor over samples [N, C, H, W], streaming in batches.

    Raises:
        ModelError: A tensor becomes NaN or infinite; names the layer.
        UsageError: An unknown observer.
    """
    observers: dict[str, Observer] = {}
    sums: dict[str, Tensor] = {}
    largest = max(math.prod(shape) for shape in (graph.input_shape, *(op.shape for op in graph.operations)))
    batch = min(max(_MOST_VALUES // largest, 1), _MOST_SAMPLES)
    with torch.no_grad():
        for start in range(0, samples.shape[0], batch):
            for name, values in evaluate(graph, samples[start : start + batch]):
                if name not in observers:
                    observers[name] = make_observer(observer, percentile, _limits(graph, name))
                    sums[name] = torch.zeros(values.shape[1], dtype=torch.float64)
                observers[name].observe(_finite(graph, name, values))
                sums[name] += (
                    values.flatten(2).mean(2, dtype=torch.float64).sum(0) if values.dim() > 2 else values.sum(0)
                )
    means = {name: total / samples.shape[0] for name, total in sums.items()}
    return Observed({name: seen.range() for name, seen in observers.items()}, means)


def _limits(graph: FloatGraph, name: str) -> tuple[float, float]:
    producer = graph.producer(name)
    return (-math.inf, math.inf) if producer is None else (producer.low, producer.high)


def _finite(graph: FloatGraph, name: str, values: Tensor) -> Tensor:
    if torch.isfinite(values).all():
        return values
    producer = graph.producer(name)
    layer = producer.name if producer is not None else name
    raise ModelError("its output is NaN or infinite on the calibration data", where=f"layer '{layer}'", fix="retrain")
