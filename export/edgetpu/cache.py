# SPDX-License-Identifier: Apache-2.0
"""How many parameter bytes stay on the Edge TPU between inferences, and how many travel each time.

The chip's 8 MiB hold the program, the activations in work and, in what is left, parameters. Logs show 6.15 to 7.9 MiB
of room: ResNet-18 6.15 cached and 7.03 streamed, FaceNet 7.04 and 15.06, tiny networks 6.8 to 7.9 left over.
"""

from dataclasses import dataclass
from typing import Any

from edge_contract.accelerators import Accelerator

__all__ = ["Cache", "cache_of"]


@dataclass(frozen=True)
class Cache:
    """Parameters of the mapped operators.

    Attributes:
        parameter_bytes: All of them.
        cached_bytes: Predicted to stay on the chip.
        streamed_bytes: Predicted to cross the cable at every inference.
        colour: ``green`` (fits for certain), ``amber`` (may fit), ``red`` (does not fit: expect a large slow-down).
    """

    parameter_bytes: int
    cached_bytes: int
    streamed_bytes: int
    colour: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "parameter_bytes": self.parameter_bytes,
            "cached_bytes": self.cached_bytes,
            "streamed_bytes": self.streamed_bytes,
            "colour": self.colour,
        }


def cache_of(parameter_bytes: int, activation_bytes: int, accelerator: Accelerator) -> Cache:
    """Return the prediction for a number of parameter bytes.

    Args:
        parameter_bytes: Constants of the mapped operators.
        activation_bytes: Largest activations that live at once.
        accelerator: Its memory.

    Example:
        >>> tpu = Accelerator("edgetpu", "16.0", 14, "2.5", 8192, 6144, {})
        >>> cache_of(3 << 20, 1 << 20, tpu).colour, cache_of(13 << 20, 1 << 20, tpu).streamed_bytes >> 20
        ('green', 6)
    """
    sram, sure = accelerator.sram_kib * 1024, accelerator.cache_kib * 1024
    room = max(sram - activation_bytes, sure)
    cached = min(parameter_bytes, room)
    colour = "green" if parameter_bytes <= sure else "amber" if parameter_bytes <= sram else "red"
    return Cache(parameter_bytes, cached, parameter_bytes - cached, colour)
