# SPDX-License-Identifier: Apache-2.0
"""Every method of every step as a recipe's words, and what must be true of a network when it has worked.

A check fails by an assertion; a method that refuses a network raises an error of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from compress import cost
from compress.cluster.step import cluster, values_of
from compress.distill.step import fit
from compress.factorize.step import factorize
from compress.final import int8_logits
from compress.prune.step import cut
from compress.quantize import mixed, sensitivity, weight_only
from compress.quantize.packing import stored_bytes
from compress.quantize.plan import QuantizationPlan
from compress.quantize.qat import retrained
from compress.recipe_table import Table
from compress.sparsify.masks import n_of_m, sparsity, weights_of
from compress.sparsify.step import sparsify
from compress.steps import Cluster, Distill, Factorize, Prune, Quantize, Sparsify, Step, Train, read_step
from tests.zoo.cases import FEATURES, Case

__all__ = ["METHODS", "step_of", "try_out"]

TRAINED: Final = {"epochs": 2, "batch": 8, "learning_rate": 2e-4}  # one optimizer step an epoch
_PRUNE: Final = {"kind": "prune", "target": {"parameters": 0.8}, "round_to": 1, "epochs": 0}
_FACTORIZE: Final = {"kind": "factorize", "energy": 0.7, "round_to": 1, "epochs": 0}
_SPARSIFY: Final = {"kind": "sparsify", **TRAINED, "every": 1}
_QUANTIZE: Final = {"kind": "quantize", "qat": {"epochs": 1, "batch": 8}}

METHODS: Final[Mapping[str, Mapping[str, Any]]] = {
    "train": {"kind": "train", **TRAINED},
    **{
        f"distill {method}": {"kind": "distill", "method": method, **TRAINED}
        for method in ("soft-targets", "features", "attention", "relational", "contrastive", "self", "mutual")
    },
    "distill combined": {"kind": "distill", "losses": {"soft-targets": 0.8, "labels": 0.1, "attention": 5}, **TRAINED},
    **{
        f"prune {method}": {**_PRUNE, "method": method}
        for method in ("taylor", "magnitude", "bn-scale", "lamp", "fpgm", "hessian")
    },
    **{
        f"factorize {method}": {**_FACTORIZE, "method": method} for method in ("auto", "svd", "spatial-svd", "tucker-2")
    },
    "sparsify magnitude": {**_SPARSIFY, "sparsity": 0.6},
    "sparsify lamp": {**_SPARSIFY, "method": "lamp", "sparsity": 0.6},
    "sparsify n:m": {**_SPARSIFY, "method": "n:m"},
    "cluster k-means": {"kind": "cluster", "clusters": 8, **TRAINED},
    "quantize static-int8": {**_QUANTIZE},
    "quantize qat-int8": {**_QUANTIZE, "method": "qat-int8"},
    "quantize static-int8, mixed": {**_QUANTIZE, "mixed": {"size_kb": 1000}},
    "quantize static-int8, equalize": {**_QUANTIZE, "equalize": True},
    "quantize static-int8, adaptive rounding": {**_QUANTIZE, "rounding": "adaptive"},
    **{
        f"quantize {method}": {**_QUANTIZE, "method": method}
        for method in ("dynamic-int8", "weight-only-int8", "weight-only-int4", "float16")
    },
}


def step_of(name: str, network: str) -> Step:
    """Return a method's step, with the layers of the network that it compares."""
    words = dict(METHODS[name])
    if words.get("method") in ("features", "attention") or "attention" in words.get("losses", ()):
        words["layers"] = [[FEATURES[network], FEATURES[network]]]
    return read_step(Table(words, name))


def try_out(name: str, one: Case) -> None:
    """Use a method on a network and check what it promises.

    Raises:
        StropError: The method refuses the network.
    """
    step = step_of(name, one.name)
    _CHECKS[type(step)](step, one)


def _answers(model: Any, one: Case) -> Tensor:
    """Return what a network answers now; it must compute, and answer as many finite numbers as before."""
    with torch.no_grad():
        found: Tensor = model(one.data.x)
    assert found.shape == one.answers.shape and bool(torch.isfinite(found).all())
    return found


def _error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def _check_training(step: Train | Distill, one: Case) -> None:
    """Two optimizer steps on the same batch lower its loss."""
    model = one.fresh
    logs = fit(step, model, one.data, seed=1, teacher=one.teacher)
    assert logs[1].loss < logs[0].loss
    assert _error(_answers(model, one), one.answers) > 0


def _check_pruning(step: Prune, one: Case) -> None:
    """The parameters are as few as was asked for, and something is left of every answer."""
    model = one.fresh
    made = cut(step, model, one.data, teacher=one.teacher)
    count = sum(p.numel() for p in model.parameters())
    assert count <= 0.8 * sum(p.numel() for p in one.net.parameters()) + 1
    assert any(new < old for old, new in made.widths.values())
    assert float(_answers(model, one).std()) > 0


def _check_factorizing(step: Factorize, one: Case) -> None:
    """Products become fewer, by the method that was asked for."""
    model = one.fresh
    changes = factorize(step, model, one.data)
    assert changes and {how for _, how, _ in changes} <= {step.method, *(_HOWS if step.method == "auto" else ())}
    example = one.data.x[:1]
    assert cost.measure(model, example).macs < cost.measure(one.net, example).macs
    assert float(_answers(model, one).std()) > 0


_HOWS: Final = ("svd", "spatial-svd", "tucker-2")


def _check_zeros(step: Sparsify, one: Case) -> None:
    """Exactly the share of zeros that was asked for, or the pattern in every block."""
    model = one.fresh
    sparsify(step, model, one.data, seed=1, teacher=one.teacher)
    weights = weights_of(model)
    if step.method == "n:m":
        patterned = [w for w in weights.values() if w.shape[1] % 4 == 0]
        assert patterned and all(bool((w[~n_of_m(w, 2, 4)[0]] == 0).all()) for w in patterned)
    else:
        assert abs(sparsity(weights) - 0.6) < 1e-3
    _answers(model, one)


def _check_shared_values(step: Cluster, one: Case) -> None:
    """No large layer has more than eight values beside zero, after training too."""
    model = one.fresh
    cluster(step, model, one.data, seed=1, teacher=one.teacher)
    large = {name.removesuffix(".weight") for name, w in weights_of(model).items() if w.numel() >= step.least}
    assert all(count <= 9 for name, count in values_of(model).items() if name in large)
    _answers(model, one)


def _check_integers(step: Quantize, one: Case) -> None:
    """Weights take the bytes they should, and answers stay near those of the float network."""
    if step.method in weight_only.FORMS:
        error = _error(_answers(weight_only.simulate(one.net, step.method), one), one.answers)
        most = {"float16": 0.002, "weight-only-int4": 0.6}.get(step.method, 0.08)
        size = 1.0 if step.method == "dynamic-int8" else 0.6  # convolutions and GRU cells stay float
        whole, stored = (weight_only.stored_bytes(one.net, form) for form in ("float32", step.method))
        assert error < most and stored < size * whole
        return
    plan = _plan(step, one)
    assert _error(_answers(int8_logits(plan), one), one.answers) < (0.8 if step.mixed else 0.4)
    limit = 0.45 if step.mixed is None else 0.4
    assert stored_bytes(plan, "onnx") < limit * cost.weight_bytes(one.net)


def _plan(step: Quantize, one: Case) -> QuantizationPlan:
    if step.method == "qat-int8":
        return retrained(one.quantizer, step.settings, one.data, one.data, training=step.qat, teacher=one.teacher)
    if step.mixed is None:
        return one.quantizer.plan(step.settings)
    plan = one.quantizer.plan(step.settings)
    found = sensitivity.measure(one.quantizer.graph, plan, one.data.x[:4], choices=("4", "8"))
    most = 0.7 * sum(sizes["8"] for sizes in found.sizes().values())
    bits = mixed.choose(found.losses(), [mixed.Limit("size_bytes", found.sizes(), most)]).choices
    assert {"4", "8"} == set(bits.values())
    return one.quantizer.plan(replace(step.settings, bits=tuple(bits.items())))


_CHECKS: Final[Mapping[type, Callable[[Any, Case], None]]] = {
    Train: _check_training,
    Distill: _check_training,
    Prune: _check_pruning,
    Factorize: _check_factorizing,
    Sparsify: _check_zeros,
    Cluster: _check_shared_values,
    Quantize: _check_integers,
}
