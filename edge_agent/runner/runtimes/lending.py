# SPDX-License-Identifier: Apache-2.0
"""A runtime's own memory, lent for the length of a block: no copy in, no copy out.

LiteRT and tflite-runtime give views of the interpreter's tensors, and refuse to run while one is held: ``input`` and
``outputs[key]`` are therefore made anew each time they are asked for. ONNX Runtime is bound to arrays of ours once
(IOBinding); it reads and writes them in place.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from edge_contract.errors import RuntimeAdapterError

__all__ = ["Lent", "View"]

Array = NDArray[Any]
View = Callable[[], Array]


class Lent:
    """What is lent. Made by a session's ``lend``.

    Args:
        source: Gives the input [1, …] in the file's own type and layout, to write into.
        sinks: Key → gives the output, to read.
        invoke: Computes the outputs of what stands in the input.
        where: What to call the model in an error.
    """

    def __init__(self, source: View, sinks: Mapping[str, View], invoke: Callable[[], object], where: str) -> None:
        self._source, self._sinks, self._invoke, self._where = source, dict(sinks), invoke, where
        self._is_over = False

    @property
    def input(self) -> Array:
        """The input's memory. Do not keep it in a variable over ``run``."""
        self._check()
        return self._source()

    @property
    def outputs(self) -> Mapping[str, Array]:
        """Key → the output's memory, after ``run``; what must live longer is to be copied."""
        self._check()
        return _Outputs(self._sinks)

    def run(self) -> None:
        """Compute the outputs.

        Raises:
            RuntimeAdapterError: The runtime failed, or a view of its memory is still held.
        """
        self._check()
        try:
            self._invoke()
        except Exception as error:  # ONNX Runtime's share no base class
            fix = (
                "keep no view of lent.input or lent.outputs over run()" if "reference to internal" in str(error) else ""
            )
            raise RuntimeAdapterError(f"inference failed: {error}", where=self._where, fix=fix) from error

    def release(self) -> None:
        """End the loan."""
        self._is_over = True

    def _check(self) -> None:
        if self._is_over:
            raise RuntimeAdapterError("the loan is over", where=self._where, fix="use it inside the block")


class _Outputs(Mapping[str, Array]):
    def __init__(self, sinks: Mapping[str, View]) -> None:
        self._sinks = sinks

    def __getitem__(self, key: str) -> Array:
        return self._sinks[key]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._sinks)

    def __len__(self) -> int:
        return len(self._sinks)
