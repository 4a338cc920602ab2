# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disk: whole or not there, tied to what made them, and loaded without running code."""

import os
from pathlib import Path
from typing import Any

import torch

from compress.processes import here
from edge_contract.errors import DataError, ModelError

__all__ = ["read_checkpoint", "read_weights", "write_checkpoint"]


def write_checkpoint(path: Path, key: str, state: dict[str, Any]) -> None:
    """Write a checkpoint: a reader sees the old file or the new one, never half of one.

    Of several processes that train together only the first writes; all hold the same state.

    Args:
        path: The file; its folder is made.
        key: Digest of what the state belongs to.
        state: Tensors, numbers and texts in dicts and lists.

    Raises:
        DataError: The disk is full or the folder cannot be written.
    """
    if not here().is_first:
        return
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # trials of a search may write the same file at once
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save({"key": key, "state": state}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch wraps a full disk in RuntimeError
        part.unlink(missing_ok=True)
        raise DataError(f"cannot be written: {error}", where=str(path), fix="free some space") from error


def read_checkpoint(path: Path | None, key: str) -> dict[str, Any] | None:
    """Return the state of a checkpoint, or None if there is none or it belongs to something else.

    Raises:
        DataError: The file is there but damaged.
    """
    if path is None or not path.exists():
        return None
    try:
        document = torch.load(path, weights_only=True, map_location="cpu")
        found, state = document["key"], document["state"]
    except Exception as error:
        fix = "delete it; the step starts again"
        raise DataError(f"not a checkpoint: {type(error).__name__}", where=str(path), fix=fix) from error
    return dict(state) if found == key else None


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict in a ``.pt`` file (or in one of our checkpoints).

    Raises:
        ModelError: Missing, damaged, or something other than a state dict.
    """
    if not path.exists():
        raise ModelError("no such file", where=str(path), fix="check the path of the weights")
    try:
        document = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        fix = "save it with torch.save(model.state_dict(), path)"
        raise ModelError(f"cannot be loaded: {type(error).__name__}", where=str(path), fix=fix) from error
    if isinstance(document, dict) and "state" in document and "model" in document["state"]:
        document = document["state"]["model"]
    if not isinstance(document, dict) or not all(isinstance(value, torch.Tensor) for value in document.values()):
        raise ModelError(
            "holds no state dict", where=str(path), fix="save it with torch.save(model.state_dict(), path)"
        )
    return document
