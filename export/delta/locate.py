# SPDX-License-Identifier: Apache-2.0
"""Where the numbers lie in a model file: byte ranges of constants, with the width of their elements."""

from edge_contract.errors import ModelError
from export.delta import onnx, tflite
from export.delta.parts import Part

__all__ = ["MIN_PART", "parts_of"]

MIN_PART = 64
"""Shorter constants stay among the bytes between constants: an operation of their own costs more than they do."""


def parts_of(data: bytes, where: str) -> list[Part]:
    """Return the constants of a TFLite or ONNX file in file order, without overlaps; [] for any other file.

    A file that only looks like a model is no error here: it is then compared as plain bytes.

    Example:
        >>> parts_of(b"labels: cat, dog", "labels.txt")
        []
    """
    try:
        found = tflite.parts(data, where) if data[4:8] == b"TFL3" else onnx.parts(data, where)
    except ModelError:
        return []
    kept: list[Part] = []
    for part in sorted(set(found)):
        is_free = not kept or part.offset >= kept[-1].offset + kept[-1].length
        if part.length >= MIN_PART and is_free:
            kept.append(part if part.length % part.width == 0 else Part(part.offset, part.length, 1, part.name))
    return kept
