# SPDX-License-Identifier: Apache-2.0
"""Between real numbers in [N, h, w, c] and an artefact's integers in its own layout."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.preprocess import apply, channels, normalize
from edge_contract.errors import DataError
from edge_contract.manifest import TensorSpec
from edge_contract.preprocess import Preprocess, Preprocessing

__all__ = ["Encoder", "dequantize", "encode", "quantize", "signed"]

Array = NDArray[Any]
_RANGE: Final = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}


def quantize(spec: TensorSpec, values: Array) -> Array:
    """Return codes clip(round(values / scale) + zero_point) in the tensor's type; float tensors pass through.

    The quotient is taken in float32 and rounded half to even, as ONNX QuantizeLinear does.

    Example:
        >>> spec = TensorSpec("x", "input", (1, 3), "int8", "NC", scale=0.5, zero_point=1)
        >>> quantize(spec, np.array([0.25, 0.75, 99.0])).tolist()
        [1, 3, 127]
    """
    real = np.asarray(values, np.float32)
    if spec.dtype == "float32":
        return real
    low, high = _RANGE[spec.dtype]
    steps = np.rint(real / np.float32(spec.scale))
    steps += np.float32(spec.zero_point)
    codes: Array = np.clip(steps, low, high, out=steps).astype(spec.dtype)
    return codes


def dequantize(spec: TensorSpec, codes: Array) -> NDArray[np.float32]:
    """Return scale × (codes - zero_point) as float32; without a scale the numbers are the real values already.

    Example:
        >>> spec = TensorSpec("x", "logits", (1, 2), "uint8", "NC", scale=0.5, zero_point=128)
        >>> dequantize(spec, np.array([0, 129], np.uint8)).tolist()
        [-64.0, 0.5]
    """
    real: NDArray[np.float32] = codes.astype(np.float32)
    if spec.dtype != "float32" and spec.scale:
        real -= np.float32(spec.zero_point)
        real *= np.float32(spec.scale)
    return real


def signed(codes: Array) -> Array:
    """Return the plan's signed codes: uint8 files hold the same integers, shifted by 128.

    Example:
        >>> signed(np.array([0, 128, 255], np.uint8)).tolist()
        [-128, 0, 127]
    """
    return (codes ^ np.uint8(128)).view(np.int8) if codes.dtype == np.uint8 else codes


def encode(spec: TensorSpec, inputs: Array) -> Array:
    """Return model inputs float32 [N, …, c] as the artefact wants them: quantized, in its layout.

    A series [N, t, c] also fits an artefact that holds it as an image of one row, as TFLite does.

    Raises:
        DataError: The shape without the batch is not that of the artefact.
    """
    is_planar = spec.layout in ("NCHW", "NCW") and inputs.ndim > 2
    arranged = np.moveaxis(inputs, -1, 1) if is_planar else inputs
    if arranged.ndim != len(spec.shape) and _sides(arranged.shape[1:]) == _sides(spec.shape[1:]):
        arranged = arranged.reshape(len(arranged), *spec.shape[1:])
    if arranged.shape[1:] != spec.shape[1:]:
        what = f"an input of shape {list(inputs.shape[1:])}, the artefact wants {list(spec.shape[1:])} ({spec.layout})"
        raise DataError(what, where=f"input '{spec.name}'", fix="set resize or crop in [preprocess]")
    return np.ascontiguousarray(quantize(spec, arranged))


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)


class Encoder:
    """Preprocess and quantize one raw input; what a byte becomes is looked up instead of computed where possible.

    Where no pixel is mixed with another one (no resize, no change of colour), each byte has one code: the 256 codes are
    made once by the very functions of the slow path, and ``bytes.translate`` does the rest at about 1 ns a pixel.
    """

    def __init__(self, preprocess: Preprocessing, spec: TensorSpec) -> None:
        self._preprocess, self._spec = preprocess, spec
        self._shapes = _direct_shapes(preprocess, spec) if isinstance(preprocess, Preprocess) else frozenset()
        self._tables = _tables(preprocess, spec) if self._shapes else ()
        self._shape = (1, *spec.shape[1:])

    def __call__(self, raw: Array) -> Array:
        """Return the artefact's input [1, ...] for a raw input; see ``preprocess.apply``. May be read-only.

        Raises:
            DataError: The raw input cannot become an input of this artefact.
        """
        if raw.shape in self._shapes and raw.dtype == np.uint8:
            return self._look_up(raw)
        return encode(self._spec, apply(self._preprocess, raw)[None])

    def _look_up(self, raw: Array) -> Array:
        tables, dtype = self._tables, self._spec.dtype
        planar = self._spec.layout == "NCHW"
        if len(tables) == 1:
            arranged = raw.transpose(2, 0, 1) if planar and raw.ndim == 3 else raw
            return np.frombuffer(arranged.tobytes().translate(tables[0]), dtype).reshape(self._shape)
        planes = [np.frombuffer(raw[..., i].tobytes().translate(t), dtype) for i, t in enumerate(tables)]
        return np.stack(planes, axis=0 if planar else 1).reshape(self._shape)


def _tables(preprocess: Preprocessing, spec: TensorSpec) -> tuple[bytes, ...]:
    """Return the 256 codes, one table for all channels or one for each."""
    count = max(len(preprocess.mean), len(preprocess.std))
    grid = np.repeat(np.arange(256, dtype=np.uint8)[:, None], count, axis=1)
    codes = quantize(spec, normalize(preprocess, grid))
    return tuple(codes[:, i].tobytes() for i in range(count))


def _direct_shapes(preprocess: Preprocess, spec: TensorSpec) -> frozenset[tuple[int, ...]]:
    """Return the shapes of raw images of which each byte has one code: no resize, no crop, no other colour."""
    if len(spec.shape) != 4 or spec.dtype not in ("int8", "uint8") or preprocess.centre or preprocess.colour == "bgr":
        return frozenset()
    planar = spec.layout == "NCHW"
    height, width = spec.shape[2:] if planar else spec.shape[1:3]
    wanted, c = (height, width), channels(preprocess)
    is_direct = all(size in (None, wanted) for size in (preprocess.resize, preprocess.crop, preprocess.pad))
    if not is_direct or spec.shape[1 if planar else 3] != c:
        return frozenset()
    return frozenset({(*wanted, 3)} if c == 3 else {wanted, (*wanted, 1)})
