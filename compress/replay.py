# SPDX-License-Identifier: Apache-2.0
"""Do to a fresh network what was done to another one."""

from collections.abc import Sequence

from torch import Tensor, nn

from compress.edits import Edit
from compress.factorize import edit as factorize
from compress.prune import graph as prune
from edge_contract.errors import ModelError

__all__ = ["replay"]


def replay(model: nn.Module, example: Tensor, edits: Sequence[Edit]) -> nn.Module:
    """Return a fresh network after the same edits; weights are then loaded by the caller.

    Args:
        model: Changed in place.
        example: One input, float32 [1,C,H,W].
        edits: In the order in which they were done.

    Raises:
        ModelError: A record of a kind that this version does not know, or that does not fit the network.
    """
    for edit in edits:
        if edit.kind == "prune":
            prune.replay(model, example, [[(layer, numbers) for layer, _, numbers in edit.changes]])
        elif edit.kind == "factorize":
            factorize.apply(model, edit.changes)
        else:
            raise ModelError(f"an edit of kind '{edit.kind}'", where="work folder", fix="run the recipe again")
    return model
