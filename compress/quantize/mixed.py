# SPDX-License-Identifier: Apache-2.0
"""Mixed precision: the weights of each layer in 4 bits, 8 bits or float32, so that the network loses least in a budget.

The loss of a choice is taken to be the sum of the losses of its layers, each measured alone (``sensitivity``). It holds
where errors are small and independent: the KL divergence is quadratic in a small change of the logits (its first-order
term vanishes at the float network), and the errors of different layers add up in their squares. What is chosen is
therefore measured again as a whole, by whoever asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compress.quantize.graph import FloatGraph, FloatOp, layer_names
from compress.quantize.sensitivity import BITS
from compress.recipe_table import nearest
from edge_contract.errors import BudgetError, MissingDependencyError, ModelError, UsageError

__all__ = ["Limit", "Mix", "apply", "choose", "noise"]

Table = Mapping[str, Mapping[str, float]]
"""layer → choice → a number."""
_RELATIVE_GAP: Final = 1e-9


@dataclass(frozen=True)
class Limit:
    """One line of the budget: the sum over layers of what their choices cost may not exceed it.

    Attributes:
        name: With its unit, such as ``size_bytes`` or ``latency_ms``.
        costs: layer → choice → cost.
        most: What is allowed.
    """

    name: str
    costs: Table
    most: float


@dataclass(frozen=True)
class Mix:
    """A choice for every layer, its summed loss, and what it costs in each line of the budget."""

    choices: Mapping[str, str]
    loss: float
    costs: Mapping[str, float]


def noise(sqnr_db: float) -> float:
    """Return the noise of an SQNR as a share of the signal: what adds up over layers, unlike decibels.

    Example:
        >>> noise(20.0)
        0.01
    """
    return float(10.0 ** (-sqnr_db / 10.0))


def choose(losses: Table, limits: Sequence[Limit]) -> Mix:
    """Return the choice for every layer with the least summed loss within every limit; of equals, the cheapest.

    minimise Σ_l Σ_c loss[l, c] x[l, c] subject to Σ_c x[l, c] = 1 and Σ_l Σ_c cost[l, c] x[l, c] <= most, x in {0, 1}:
    solved exactly, by branch and bound. Of several optima the one with the least first cost is taken.

    Args:
        losses: layer → choice → loss, 0 or more, finite; what a layer does not list is not open to it.
        limits: At least one; they list the same layers and choices.

    Raises:
        BudgetError: No choice keeps within a limit; says what the smallest one needs.
        UsageError: Tables that do not fit each other, or a loss that is negative, NaN or infinite.
        MissingDependencyError: SciPy is not installed.

    Example:
        >>> losses = {"stem": {"4": 0.9, "8": 0.1}, "head": {"4": 0.2, "8": 0.1}}
        >>> sizes = {"stem": {"4": 10, "8": 20}, "head": {"4": 50, "8": 100}}
        >>> mix = choose(losses, [Limit("size_bytes", sizes, 100)])
        >>> dict(mix.choices), mix.costs
        ({'stem': '8', 'head': '4'}, {'size_bytes': 70.0})

    Reference:
        Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", 2021, section 3.3 (integer program); Hubara et al.,
        "Accurate Post Training Quantization With Small Calibration Sets", 2021, section 4 (additive losses).
    """
    _check(losses, limits)
    _check_possible(losses, limits)
    open_choices = [(layer, choice) for layer, row in losses.items() for choice in row]
    weights = np.array([float(losses[layer][choice]) for layer, choice in open_choices])
    costs = np.array([[float(one.costs[layer][choice]) for layer, choice in open_choices] for one in limits])
    most = np.array([one.most for one in limits])
    owner = np.array([[float(layer == other) for layer, _ in open_choices] for other in losses])
    best = _solve(weights, owner, costs, most)
    if best is None:
        together = " and ".join(one.name for one in limits)
        raise BudgetError(f"no mix of bits keeps {together} together", fix="relax one of them")
    least = float(weights @ best)
    cheaper = _solve(costs[0], owner, np.vstack([costs, weights]), np.append(most, least * (1 + _RELATIVE_GAP)))
    chosen = best if cheaper is None or costs[0] @ cheaper > costs[0] @ best else cheaper
    picks = dict(pair for pair, is_taken in zip(open_choices, chosen, strict=True) if is_taken)
    spent = {one.name: float(row @ chosen) for one, row in zip(limits, costs, strict=True)}
    return Mix(picks, float(weights @ chosen), spent)


def _solve(
    objective: NDArray[np.float64], owner: NDArray[np.float64], costs: NDArray[np.float64], most: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return the best 0/1 vector, or None if there is none; the limits hold exactly, not to the solver's tolerance."""
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
    except ImportError as error:
        raise MissingDependencyError("SciPy is missing", fix="pip install 'strop[workstation]'") from error
    scale = np.maximum(np.abs(costs).max(axis=1), 1e-300)
    rows, allowed = costs / scale[:, None], most / scale
    unit = float(np.abs(objective).max()) or 1.0
    for slack in (0.0, 1e-7, 1e-6, 1e-5):
        found = milp(
            objective / unit,
            integrality=np.ones_like(objective),
            bounds=Bounds(0, 1),
            constraints=[LinearConstraint(owner, 1, 1), LinearConstraint(rows, -np.inf, allowed - slack)],
            options={"mip_rel_gap": 0.0},
        )
        if found.x is None:
            return None
        answer: NDArray[np.float64] = np.rint(found.x)
        if (costs @ answer <= most).all():
            return answer
    return None


def _check(losses: Table, limits: Sequence[Limit]) -> None:
    if not losses or not limits:
        raise UsageError("nothing to choose" if limits else "no limit", where="mixed precision", fix="give both")
    for layer, row in losses.items():
        if not row or not all(np.isfinite(loss) and loss >= 0.0 for loss in row.values()):
            what = f"its losses {dict(row)} are not finite numbers from 0"
            raise UsageError(what, where=f"layer '{layer}'", fix="measure them with compress.quantize.sensitivity")
        for limit in limits:
            missing = sorted(set(row) - set(limit.costs.get(layer, {})))
            if missing:
                what = f"{limit.name} has no cost for '{missing[0]}'"
                raise UsageError(what, where=f"layer '{layer}'", fix="give the same choices in every table")


def _check_possible(losses: Table, limits: Sequence[Limit]) -> None:
    for limit in limits:
        smallest = sum(min(limit.costs[layer][choice] for choice in row) for layer, row in losses.items())
        if smallest > limit.most:
            what = f"{limit.name} {limit.most:g} is below {smallest:g}, the smallest possible"
            raise BudgetError(what, where="mixed precision", fix=f"allow at least {smallest:g}")


def apply(graph: FloatGraph, choices: Mapping[str, str]) -> FloatGraph:
    """Return the graph with the chosen bits for each named layer; layers that are not named stay as they are.

    Args:
        graph: Folded; a layer whose bits change loses the scales and codes that an earlier pass chose for other bits.
        choices: layer (``graph.layer_names``) → ``4``, ``8`` or ``float``.

    Raises:
        UsageError: An unknown choice.
        ModelError: No layer with weights has that name; names the nearest.
    """
    names = layer_names(graph)
    weighted = {name for name, op in zip(names, graph.operations, strict=True) if op.kind in ("conv2d", "linear")}
    for layer, choice in choices.items():
        if choice not in BITS:
            raise UsageError(f"unknown choice '{choice}'", where=f"layer '{layer}'", fix=f"use {', '.join(BITS)}")
        if layer not in weighted:
            what = f"no convolution or linear layer '{layer}'"
            raise ModelError(what, where="mixed precision", fix=nearest(layer, sorted(weighted)))
    pairs = zip(names, graph.operations, strict=True)
    return replace(graph, operations=tuple(_with(op, choices.get(name)) for name, op in pairs))


def _with(op: FloatOp, choice: str | None) -> FloatOp:
    if choice is None:
        return op
    if choice == "float":
        return replace(op, wide=True, weight_bits=8, steps=None, codes=None)
    bits = BITS[choice]
    if bits == op.weight_bits and not op.wide:
        return op
    return replace(op, wide=False, weight_bits=bits, steps=None, codes=None)
