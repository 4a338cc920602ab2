# SPDX-License-Identifier: Apache-2.0
"""The closed vocabulary of preprocessing for sensor series: how a recording [T, C] becomes windows for a model."""

from dataclasses import dataclass
from typing import Any

from edge_contract.closed import MAX_LENGTH, bounded, check_factors, refuse_unknown
from edge_contract.errors import ManifestError, StropError
from edge_contract.fields import Fields

__all__ = ["NORMALISE", "Series"]

NORMALISE = ("given", "window")
_MAX_CHANNELS = 4096


@dataclass(frozen=True)
class Series:
    """How samples of C sensors become the model's float input [length, C].

    The order is fixed: × scale → - mean → / std → (``window`` alone) each channel to mean 0 and deviation 1.

    Attributes:
        channels: C, the number of sensors.
        length: Samples of one window.
        hop: Samples between the starts of two windows of a recording.
        rate_hz: Samples a second that the source must deliver; 0 where it does not matter. Nothing is resampled.
        normalise: ``given``: by the numbers below only; ``window``: after them by each window's own mean and deviation.
        scale: Factor on raw values.
        mean, std: Per channel, length 1 or ``channels``; subtracted, then divided by.

    Example:
        >>> Series.from_json({"kind": "series", "channels": 3, "length": 100, "hop": 50}).to_json()["hop"]
        50
    """

    channels: int
    length: int
    hop: int
    rate_hz: float = 0.0
    normalise: str = "given"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; a hop of one length, an unstated rate and ``given`` are left out."""
        document: dict[str, Any] = {"kind": "series", "channels": self.channels, "length": self.length}
        document.update(scale=self.scale, mean=list(self.mean), std=list(self.std))
        if self.hop != self.length:
            document["hop"] = self.hop
        if self.rate_hz:
            document["rate_hz"] = self.rate_hz
        if self.normalise != "given":
            document["normalise"] = self.normalise
        return document

    @classmethod
    def from_json(cls, document: Any, where: str = "preprocess", error: type[StropError] = ManifestError) -> "Series":
        """Return the description in a JSON or TOML object.

        Raises:
            StropError: (as ``error``) a field missing, of the wrong type or out of range, or an unknown key.
        """
        fields = Fields(document, where, error)
        fields.text("kind", among=("series",))
        channels = bounded(fields, "channels", _MAX_CHANNELS)
        length = bounded(fields, "length", MAX_LENGTH)
        hop = bounded(fields, "hop", MAX_LENGTH, length)
        rate = fields.number("rate_hz", 0.0)
        if rate < 0:
            raise error(f"{rate:g} is no rate", where=f"{where}.rate_hz", fix="give samples a second, or leave it out")
        normalise = fields.text("normalise", "given", among=NORMALISE)
        scale = fields.number("scale", 1.0)
        mean, std = check_factors(fields, (1, channels), f"{channels} channels")
        refuse_unknown(fields)
        return cls(channels, length, hop, rate, normalise, scale, mean, std)
