# SPDX-License-Identifier: Apache-2.0
"""Where a float export takes its module and its inputs from: a compressed folder, or ``module:callable`` and a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.checkpoint import read_weights
from compress.sources import resolve
from edge_agent.runner.preprocess import apply_batch
from edge_contract.errors import DataError, ModelError, UsageError
from export import samples_file
from export.bundle.material import open_folder

__all__ = ["Source", "open_source"]


@dataclass(frozen=True, eq=False)
class Source:
    """A module with real inputs.

    Attributes:
        model: The module.
        inputs: One tensor [N, ...] per argument of its ``forward``.
        outputs: Names of its outputs; empty where nobody knows them.
    """

    model: nn.Module
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]


def open_source(text: str, *, inputs: Path | None, weights: Path | None) -> Source:
    """Return what a person named.

    Args:
        text: A folder that ``strop compress run`` wrote, whose recipe gives the inputs; or ``module:callable``.
        inputs: ``.npz`` with one array per argument of ``forward``, in order; needed for a callable.
        weights: A state dict for the callable's module.

    Raises:
        UsageError: Inputs are missing or too many.
        RecipeError: No such module or callable.
        DataError, ModelError: The folder, the inputs or the weights are not what they should be.
    """
    if Path(text).is_dir():
        if inputs is not None or weights is not None:
            fix = "leave --inputs and --weights out: the folder has both"
            raise UsageError("a compressed folder needs no more", where=text, fix=fix)
        return _from_folder(Path(text))
    if ":" not in text:
        fix = "give the folder of a compressed model, or module:callable"
        raise UsageError("neither a folder nor module:callable", where=text, fix=fix)
    if inputs is None:
        raise UsageError("no inputs to prove the file on", where=text, fix="give --inputs data.npz")
    tensors = tuple(_tensor(array, str(inputs)) for array in samples_file.read(inputs).values())
    return Source(_module(text, weights), tensors, ())


def _from_folder(folder: Path) -> Source:
    compressed, samples = open_folder(folder)
    x = apply_batch(compressed.preprocess, samples.raw[:64])
    return Source(compressed.model, (torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1))),), ("logits",))


def _tensor(array: NDArray[Any], where: str) -> Tensor:
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    try:
        return torch.from_numpy(np.ascontiguousarray(array))
    except TypeError as error:
        raise DataError(f"an array of type {array.dtype}", where=where, fix="give float32 or integers") from error


def _module(text: str, weights: Path | None) -> nn.Module:
    try:
        model = resolve(text, where=text, key="MODEL", folder=Path.cwd())()
    except TypeError as error:
        raise ModelError(f"failed: {error}", where=text, fix="give a callable without arguments") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"returned a {type(model).__name__}", where=text, fix="return a torch module")
    if weights is not None:
        try:
            model.load_state_dict(read_weights(weights))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"the weights do not fit: {reason}", where=str(weights)) from error
    return model
