# SPDX-License-Identifier: Apache-2.0
"""The quantize step: a float module and calibration samples become a QuantizationPlan."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from compress.quantize.calibrate import Observed, calibrate, check_samples
from compress.quantize.decide import decide
from compress.quantize.fold import fold
from compress.quantize.gates import open_gates
from compress.quantize.graph import FloatGraph, as_maps
from compress.quantize.plan import QuantizationPlan
from compress.quantize.trace import trace
from compress.recipe_table import nearest
from compress.steps.quantize import Settings
from edge_contract.errors import ModelError

__all__ = ["Quantizer", "folded", "quantize", "widened"]


def folded(model: nn.Module, example: Tensor) -> FloatGraph:
    """Return the folded float graph of a module, traced on one input [1, C, H, W] or [1, C, L]; raises as ``trace``."""
    return fold(trace(model, example))


class Quantizer:
    """One model and its calibration samples, traced once, quantized as often as one likes.

    Args:
        model, calibration, embedding: As for ``quantize``.
        clusters: Let the codes of each layer take so many values beside 0 (``compress.cluster.codes``); 0 leaves them.

    Attributes:
        graph: The folded float graph with opened gates.
        calibration: The samples as maps, float32 [N, C, H, W].

    Raises:
        DataError, ModelError, UnsupportedOperatorError: As ``quantize``.
    """

    def __init__(self, model: nn.Module, calibration: Tensor, *, embedding: bool = True, clusters: int = 0) -> None:
        self._warnings = check_samples(calibration)
        self._embedding, self._clusters = embedding, clusters
        with torch.no_grad():
            self.graph = open_gates(folded(model, calibration[:1]))
        self.calibration = as_maps(calibration)

    def plan(self, settings: Settings, *, tie_free: bool = True, fixed_point: bool = True) -> QuantizationPlan:
        """Return the plan that some settings decide.

        Args:
            settings: Observer, passes, wide layers.
            tie_free, fixed_point: See ``quantize``.
        """
        with torch.no_grad():
            return self.decide(self.prepared(settings), settings, tie_free=tie_free, fixed_point=fixed_point)

    def prepared(self, settings: Settings) -> FloatGraph:
        """Return the graph after the passes that some settings ask for before ranges are observed."""
        graph = self.graph
        if settings.equalize:
            from compress.quantize.equalize import equalize, peaks

            with torch.no_grad():
                graph = equalize(graph, peaks(graph, self.calibration))
        if settings.bits:
            from compress.quantize import mixed

            graph = mixed.apply(graph, dict(settings.bits))
        graph = widened(graph, settings.wide) if settings.wide else graph
        if self._clusters:
            from compress.cluster.codes import shared_codes

            graph = shared_codes(graph, self._clusters)
        return graph

    def observe(self, graph: FloatGraph, settings: Settings) -> Observed:
        """Return what calibration sees of a graph."""
        words = {"observer": settings.observer, "percentile": settings.percentile}
        return calibrate(graph, self.calibration, **words)  # type: ignore[arg-type]

    def decide(
        self, graph: FloatGraph, settings: Settings, *, tie_free: bool = True, fixed_point: bool = True
    ) -> QuantizationPlan:
        """Return the plan of a graph that passes have prepared, with the settings' observer, biases and rounding."""
        observed = self.observe(graph, settings)
        plan = self._decided(graph, observed, settings, tie_free=tie_free, fixed_point=fixed_point)
        if settings.rounding == "adaptive":
            from compress.quantize.reconstruct import reconstruct

            graph = reconstruct(graph, plan, self.calibration)  # sets biases, too: nothing is left to correct
            settings = replace(settings, correct_bias=False)
            plan = self._decided(graph, observed, settings, tie_free=tie_free, fixed_point=fixed_point)
        return replace(plan, notes=self._warnings + plan.notes)

    def _decided(
        self, graph: FloatGraph, observed: Observed, settings: Settings, *, tie_free: bool, fixed_point: bool
    ) -> QuantizationPlan:
        return decide(
            graph,
            observed,
            samples=self.calibration.shape[0],
            embedding=self._embedding,
            tie_free=tie_free,
            fixed_point=fixed_point,
            correct_bias=settings.correct_bias,
        )


def widened(graph: FloatGraph, layers: Sequence[str]) -> FloatGraph:
    """Return the graph with the named layers computed in float32.

    Raises:
        ModelError: A name that no convolution or linear layer has; offers the nearest.
    """
    known = [op.name for op in graph.operations if op.kind in ("conv2d", "linear")]
    for name in layers:
        if name not in known:
            raise ModelError("no such layer", where=f"wide layer '{name}'", fix=nearest(name, known))
    chosen = set(layers)
    operations = (replace(op, wide=True) if op.name in chosen and op.name in known else op for op in graph.operations)
    return replace(graph, operations=tuple(operations))


def quantize(
    model: nn.Module,
    calibration: Tensor,
    *,
    embedding: bool = True,
    observer: str = "rounding-error",
    percentile: float = 99.99,
    tie_free: bool = True,
    fixed_point: bool = True,
    correct_bias: bool = True,
    equalize: bool = False,
    rounding: str = "nearest",
    wide: tuple[str, ...] = (),
) -> QuantizationPlan:
    """Return the int8 plan of a model; the model is not changed.

    Args:
        model: One forward from [N, C, H, W] or [N, C, L] to logits [N, K]; evaluated as in eval().
        calibration: Preprocessed float32 samples [N, C, H, W] or [N, C, L], at least 64 of them.
        embedding: Show the input of the last linear layer as a second output.
        observer: One of ``compress.steps.quantize.OBSERVERS``.
        percentile: For the percentile observer, above 50 and at most 100.
        tie_free: Choose scales in which additions and means never tie, so that ONNX Runtime and LiteRT agree.
        fixed_point: Before each ReLU, choose multipliers that the kernels of old runtimes, which round twice, compute
            alike too.
        correct_bias: Take the mean shift that rounded weights cause off the biases (``bias``).
        equalize: Equalize channel ranges across layers first (``equalize``).
        rounding: ``nearest`` or ``adaptive`` (``reconstruct``).
        wide: Layers that stay in float32 between int8 tensors.

    Raises:
        DataError: No samples, NaN, a wrong type or shape, or all values equal.
        UnsupportedOperatorError: A layer that integers cannot express; names it and a rewrite.
        ModelError: The model cannot be traced, or holds values beyond float32.

    Reference:
        Jacob et al. 2018 (integer-only inference); Nagel et al., "A White Paper on Neural Network Quantization", 2021.
    """
    settings = Settings(observer, percentile, equalize, correct_bias, rounding, wide)
    quantizer = Quantizer(model, calibration, embedding=embedding)
    return quantizer.plan(settings, tie_free=tie_free, fixed_point=fixed_point)
