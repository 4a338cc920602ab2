# SPDX-License-Identifier: Apache-2.0
"""Shared values where they ship: the int8 codes of a layer take few values, so that the int8 file packs better.

Sharing in float is half undone by a plan: folded normalisation and one scale per channel make many codes of one
value. This pass shares the codes themselves, after both.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from compress.cluster.kmeans import optimal
from compress.quantize.graph import FloatGraph, FloatOp
from compress.quantize.weights import weight_limit, weight_scales

__all__ = ["few_codes", "shared_codes"]

GRAIN = 8
"""Codes are looked at in eighths: finer differences vanish when centroids become integers."""


def shared_codes(graph: FloatGraph, clusters: int, *, least: int = 256) -> FloatGraph:
    """Return the graph with at most ``clusters`` codes beside 0 in each layer.

    Args:
        graph: Folded.
        clusters: 2 to 254.
        least: Layers with fewer weights stay, as do those in float and those whose codes are decided already.

    Returns:
        Scales and codes set; a code's error counts with the square of its channel's scale.
    """
    ready = {op.name: _shared(op, clusters) for op in graph.operations if _is_open(op, least)}
    return replace(graph, operations=tuple(ready.get(op.name, op) for op in graph.operations))


def _is_open(op: FloatOp, least: int) -> bool:
    is_layer = op.kind in ("conv2d", "linear") and op.weight is not None and op.weight.numel() >= least
    return is_layer and not op.wide and op.codes is None


def _shared(op: FloatOp, clusters: int) -> FloatOp:
    assert op.weight is not None
    scales = weight_scales(op)
    spread = np.broadcast_to(scales.astype(np.float64), (op.weight.shape[0],))
    exact = op.weight.detach().double().flatten(1).numpy() / spread[:, None]
    codes = few_codes(exact, np.repeat(spread**2, exact.shape[1]), clusters, weight_limit(op))
    shaped = torch.from_numpy(codes.reshape(op.weight.shape))
    return replace(op, codes=shaped, steps=torch.from_numpy(scales))


def few_codes(exact: NDArray[np.float64], weight: NDArray[np.float64], clusters: int, limit: int) -> NDArray[np.int8]:
    """Return int8 codes of at most ``clusters`` values beside 0, of the shape of ``exact``.

    Args:
        exact: Weights in units of their scale; those nearest to 0 become 0.
        weight: How much the squared error of each counts, as many.
        clusters: Values beside 0.
        limit: Largest code.

    Example:
        >>> few_codes(np.array([0.2, 9.0, 11.2, -70.0]), np.ones(4), 2, 127).tolist()
        [0, 10, 10, -70]
    """
    flat = exact.ravel()
    alive = np.abs(flat) >= 0.5
    codes = np.zeros(len(flat), np.int8)
    if alive.any():
        found = optimal(np.rint(flat[alive] * GRAIN) / GRAIN, clusters, weight[alive])
        whole = np.unique(np.clip(np.rint(found), -limit, limit))
        owner = np.searchsorted((whole[1:] + whole[:-1]) / 2, flat[alive])
        codes[alive] = whole[owner].astype(np.int8)
    return codes.reshape(exact.shape)
