# SPDX-License-Identifier: Apache-2.0
"""A board whose laws are known: models of several families, and what they take there."""

import numpy as np

from benchmarks.predict.predictor import Measured
from edge_contract.operator_work import OperatorWork

KINDS = ("conv", "pointwise", "depthwise", "dense")


def operator(kind, *, inputs, outputs, size, type_="int8"):
    """Return a layer of a kind on size×size maps."""
    taps = {"conv": 9, "depthwise": 9}.get(kind, 1)
    places = 1 if kind == "dense" else size**2
    each = taps * (1 if kind == "depthwise" else inputs) * outputs
    weights = each
    return OperatorWork(kind, type_, places * each, places * inputs, places * outputs, weights, (inputs, outputs))


def model(draw, family, width):
    """Return the operators of a member: the family decides layers and sizes, the width their channels."""
    rng = np.random.default_rng(family)
    found = []
    for _ in range(int(rng.integers(4, 9))):
        kind, size = KINDS[int(rng.integers(4))], int(rng.choice([4, 8, 16]))
        inputs, outputs = (max(4, int(width * rng.choice([16, 32, 48]))) for _ in range(2))
        outputs = inputs if kind == "depthwise" else outputs
        found.append(operator(kind, inputs=inputs, outputs=outputs, size=size))
    return tuple(found)


def true_ms(operators):
    """Return milliseconds by the law of this board: 0.01 a call, then products, bytes and 2 µs an operator."""
    rates = {"conv": 0.05, "pointwise": 0.04, "depthwise": 0.3, "dense": 0.1}
    each = (rates[op.kind] * op.products / 1e6 + 0.08 * (op.inputs + op.outputs) / 1e5 + 0.002 for op in operators)
    return 0.01 + sum(each)


def measured(families, *, widths=(0.5, 0.75, 1.0, 1.5, 2.0), family_sd=0.0, sd=0.0, seed=0, first=0):
    """Return measurements; a family errs as a whole by ``family_sd``, a model by ``sd``, both in logarithms."""
    draw = np.random.default_rng(seed)
    found = []
    for family in range(first, first + families):
        shift = draw.normal(0, family_sd)
        for width in widths:
            operators = model(draw, family, width)
            ms = true_ms(operators) * float(np.exp(shift + draw.normal(0, sd)))
            found.append(Measured(f"f{family}-{width:g}", f"f{family}", operators, ms))
    return found
