# SPDX-License-Identifier: Apache-2.0
"""The steps that a recipe may ask for: one frozen class each with its reader; nothing here knows PyTorch."""

from collections.abc import Callable
from typing import Final

from compress.recipe_table import Table, nearest
from compress.steps.cluster import Cluster, read_cluster
from compress.steps.factorize import Factorize, read_factorize
from compress.steps.prune import Prune, read_prune
from compress.steps.quantize import Quantize, read_quantize
from compress.steps.sparsify import Sparsify, read_sparsify
from compress.steps.training import Distill, Train, Training, read_distill, read_train
from edge_contract.errors import RecipeError

__all__ = [
    "KINDS",
    "Cluster",
    "Distill",
    "Factorize",
    "Prune",
    "Quantize",
    "Sparsify",
    "Step",
    "Train",
    "Training",
    "read_step",
]

Step = Train | Distill | Prune | Factorize | Sparsify | Cluster | Quantize

KINDS: Final[dict[str, Callable[[Table], Step]]] = {
    "train": read_train,
    "distill": read_distill,
    "prune": read_prune,
    "factorize": read_factorize,
    "sparsify": read_sparsify,
    "cluster": read_cluster,
    "quantize": read_quantize,
}


def read_step(table: Table) -> Step:
    """Return the step in a ``[[step]]`` table.

    Raises:
        RecipeError: An unknown kind, key or value.

    Example:
        >>> read_step(Table({"kind": "prune", "target": {"macs": 0.5}}, "r.toml [step 1]")).target
        {'macs': 0.5}
    """
    kind = table.text("kind")
    if kind not in KINDS:
        raise RecipeError(f"key 'kind': unknown value {kind!r}", where=table.where, fix=nearest(kind, tuple(KINDS)))
    step = KINDS[kind](table)
    table.done()
    return step
