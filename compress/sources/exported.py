# SPDX-License-Identifier: Apache-2.0
"""Read an exported program; what is damaged is one error, without the traceback that PyTorch logs beside it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import torch

__all__ = ["load_exported"]


def load_exported(data: bytes) -> Any:
    """Return the ``torch.export.ExportedProgram`` in the bytes of a ``.pt2`` file; raises whatever PyTorch raises.

    Example:
        >>> load_exported(b"")
        Traceback (most recent call last):
        zipfile.BadZipFile: File is not a zip file
    """
    with warnings.catch_warnings(), _silent("torch.export"):
        warnings.simplefilter("ignore")
        return torch.export.load(BytesIO(data))  # from memory: it leaves a damaged file open


@contextmanager
def _silent(logger: str) -> Iterator[None]:
    log = logging.getLogger(logger)
    was = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = was
