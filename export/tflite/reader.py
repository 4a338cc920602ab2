# SPDX-License-Identifier: Apache-2.0
"""Read any TFLite file, ours or another's, into frozen values that are safe to compute with.

A truncated or hostile file gives one ModelError; memory and time stay within a few times what the file's size deserves
(``flatbuffer_walk`` keeps the bounds, ``flatbuffer_view`` the sense). Needs no package beyond Python's own.
"""

from pathlib import Path

from edge_contract.errors import ModelError
from export.tflite.model import Operator, Signature, Subgraph, Tensor, TFLiteModel
from export.tflite.view import view
from export.tflite.walk import MAX_BYTES, decode

__all__ = ["Operator", "Signature", "Subgraph", "TFLiteModel", "Tensor", "read", "read_file"]


def read_file(path: Path | str) -> TFLiteModel:
    """Return what a TFLite file holds.

    Raises:
        ModelError: It cannot be read, is truncated, or contradicts itself.
    """
    try:
        is_small = Path(path).stat().st_size <= MAX_BYTES  # a bounded read() would set that much memory aside
        data = Path(path).read_bytes() if is_small else b""
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", where=str(path)) from error
    if not is_small:
        raise ModelError("more than the 2 GiB that a TFLite file can hold", where=str(path))
    return read(data, str(path))


def read(data: bytes, where: str) -> TFLiteModel:
    """Return what the bytes of a TFLite file hold; ``where`` names it in errors.

    Raises:
        ModelError: The file is truncated or contradicts itself.

    Example:
        >>> read(b"TFL3", "net.tflite")
        Traceback (most recent call last):
        edge_contract.errors.ModelError: net.tflite: not a TFLite file: its mark 'TFL3' is missing; give a .tflite file
    """
    root, walker = decode(data, where)
    return view(root, walker, len(data))
