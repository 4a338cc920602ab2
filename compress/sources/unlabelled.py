# SPDX-License-Identifier: Apache-2.0
"""Inputs without labels: read, and cut into a part to learn from and a part that judges."""

import hashlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.named_sources import NPZ
from compress.recipe import Recipe
from compress.sources.archives import read_inputs
from compress.sources.captured import holds_captures, read_captured
from compress.sources.names import call, resolve
from compress.splits import Split
from edge_contract.errors import DataError

__all__ = ["held_out", "read_unlabelled", "without_copies"]

_LONGEST: Final = 16  # successive inputs that stay together
_BLOCKS: Final = 20  # that a small set is cut into at least

Raw = NDArray[Any]
Mask = NDArray[np.bool_]


def read_unlabelled(recipe: Recipe) -> tuple[Raw | None, Mask | None]:
    """Return the inputs that ``[data] unlabelled`` names, raw, and which of them no step may see; None without them.

    An input that is there twice is taken once.

    Raises:
        RecipeError, DataError: The name leads nowhere, or to something else than inputs.
    """
    if not recipe.data.unlabelled:
        return None, None
    x = without_copies(_read(recipe))
    return x, held_out(len(x) if x.ndim else 0, recipe.data.unlabelled_test, seed=recipe.seed)


def _read(recipe: Recipe) -> Raw:
    name = recipe.data.unlabelled
    if name.endswith((NPZ, "/")):
        path = recipe.file(name)
        if holds_captures(path):
            return read_captured(path).x
        if name.endswith(NPZ):
            return read_inputs(path)
        from compress.sources.folders import read_images

        return read_images(path, recipe.preprocess)
    where = f"{recipe.where('data')} unlabelled {name!r}"
    function = resolve(name, where=recipe.where("data"), key="unlabelled", folder=recipe.path.parent)
    found = call(function, name, where, DataError)
    found = found.x if isinstance(found, Split) else found
    if not isinstance(found, np.ndarray):
        raise DataError(f"returned a {type(found).__name__}", where=where, fix="return an array of inputs [N, …]")
    return found


def without_copies(x: Raw) -> Raw:
    """Return the inputs [N, …] without those that stood before already, to the bit.

    Example:
        >>> without_copies(np.array([[1, 2], [3, 4], [1, 2]])).tolist()
        [[1, 2], [3, 4]]
    """
    if not x.ndim:
        return x
    seen: dict[bytes, int] = {}
    for row, one in enumerate(x):
        seen.setdefault(hashlib.sha256(np.ascontiguousarray(one).tobytes()).digest(), row)
    return x if len(seen) == len(x) else x[sorted(seen.values())]


def held_out(count: int, share: float, *, seed: int) -> Mask:
    """Return which of some inputs in the order in which they were seen are held out, about a share of all [count].

    Successive frames of a camera are alike, so stretches of up to 16 successive inputs go to one part together: what
    judges is not the neighbour of what was learned. One input at least is left to learn from.

    Args:
        count: Inputs.
        share: Of all that are held out, 0 to below 1; 0 holds none out.
        seed: Decides which.

    Example:
        >>> np.flatnonzero(held_out(100, 0.2, seed=1)).tolist()
        [5, 6, 7, 8, 9, 50, 51, 52, 53, 54, 80, 81, 82, 83, 84, 90, 91, 92, 93, 94]
    """
    if not share or count < 2:  # a single input teaches
        return np.zeros(count, np.bool_)
    length = max(1, min(_LONGEST, count // _BLOCKS))
    blocks = np.arange(count) // length
    order = np.random.default_rng(seed).permutation(int(blocks[-1]) + 1)
    wanted = max(1, min(len(order) - 1, round(share * count / length)))
    return np.isin(blocks, order[:wanted])
