# SPDX-License-Identifier: Apache-2.0
"""The closed vocabulary of preprocessing for sound: clips of mono PCM, whole or as spectra, mel bands or MFCC."""

from dataclasses import dataclass, replace
from typing import Any

from edge_contract.closed import MAX_LENGTH, bounded, check_factors, refuse_unknown
from edge_contract.errors import ManifestError, StropError
from edge_contract.fields import Fields

__all__ = ["Audio"]

WINDOWS = ("hann", "hamming", "none")
EDGES = ("none", "reflect", "zero")
MELS = ("htk", "slaney", "tensorflow")
LOGS = ("none", "natural", "decibel")
DCTS = ("ortho", "htk")
_MAX_RATE, _MAX_FFT, _MAX_BANDS = 1_000_000, 1 << 16, 1024
_MAX_POINTS = 1 << 25  # of all frames of a clip together: 256 MB in double
# Plain keys that are left out of the JSON at their default, and what that default is.
_TEXTS = {"edges": ("none", EDGES), "window": ("hann", WINDOWS), "mel": ("htk", MELS), "log": ("none", LOGS)}
_OFFSET = 1e-6


@dataclass(frozen=True)
class Audio:
    """How a clip of mono PCM becomes the model's float input.

    The order is fixed, and each step is left out by leaving out its key::

        clip [length] → frames (frame, step, edges) × window → |FFT|^power → mel (bands) → log (x + offset)
        → DCT (coefficients) → × scale → - mean → / std

    Without ``frame`` the model takes the clip itself, [length, 1]; else [frames, values, 1], values = coefficients,
    bands or fft / 2 + 1, whichever comes last.

    Attributes:
        rate_hz: Samples a second that the source must deliver. Nothing is resampled.
        length: Samples of one clip; a shorter one is filled up with zeros at its end, a longer one is refused.
        hop: Samples between the starts of two clips of a recording.
        frame, step: Samples of one frame, and between the starts of two; 0 for no frames.
        edges: ``none``: only whole frames; ``reflect``, ``zero``: frame // 2 samples are added at both ends before.
        window: ``hann``, ``hamming`` (both periodic) or ``none``.
        fft: Points of the transform; frames are filled up with zeros at their end.
        power: 2 for the power spectrum, 1 for magnitudes.
        bands, low_hz, high_hz, mel: Triangles of the mel filterbank, see docs/preprocessing.md; 0 bands for none.
        log: ``natural``: ln(x + offset); ``decibel``: 10 log10(x + offset).
        offset: Keeps the logarithm of silence finite.
        coefficients, dct: First coefficients of the DCT-II (MFCC); 0 for none.
        scale, mean, std: As for images; mean and std have length 1 or the number of values of a frame.

    Example:
        >>> clip = {"kind": "audio", "rate_hz": 16000, "length": 16000, "frame": 480, "step": 320, "fft": 512}
        >>> Audio.from_json({**clip, "bands": 40, "low_hz": 20.0, "high_hz": 4000.0, "coefficients": 10}).shape
        (49, 10, 1)
    """

    rate_hz: int
    length: int
    hop: int
    frame: int = 0
    step: int = 0
    edges: str = "none"
    window: str = "hann"
    fft: int = 0
    power: int = 2
    bands: int = 0
    low_hz: float = 0.0
    high_hz: float = 0.0
    mel: str = "htk"
    log: str = "none"
    offset: float = _OFFSET
    coefficients: int = 0
    dct: str = "ortho"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def frames(self) -> int:
        """Frames of one clip; 0 where the model takes the clip itself."""
        if not self.frame:
            return 0
        padded = self.length + (0 if self.edges == "none" else 2 * (self.frame // 2))
        return 1 + (padded - self.frame) // self.step

    @property
    def values(self) -> int:
        """Values of one frame; 1 where the model takes the clip itself."""
        return (self.coefficients or self.bands or self.fft // 2 + 1) if self.frame else 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The model input's shape without the batch."""
        return (self.frames, self.values, 1) if self.frame else (self.length, 1)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; what is at its default is left out."""
        document: dict[str, Any] = {"kind": "audio", "rate_hz": self.rate_hz, "length": self.length}
        document.update(scale=self.scale, mean=list(self.mean), std=list(self.std))
        if self.hop != self.length:
            document["hop"] = self.hop
        if self.frame:
            document.update(frame=self.frame, step=self.step, **({} if self.fft == self.frame else {"fft": self.fft}))
        if self.power != 2:
            document["power"] = self.power
        if self.bands:
            document.update(bands=self.bands, low_hz=self.low_hz, high_hz=self.high_hz)
        if self.coefficients:
            document.update(coefficients=self.coefficients, **({} if self.dct == "ortho" else {"dct": self.dct}))
        document.update({key: getattr(self, key) for key, (usual, _) in _TEXTS.items() if getattr(self, key) != usual})
        if self.offset != _OFFSET:
            document["offset"] = self.offset
        return document

    @classmethod
    def from_json(cls, document: Any, where: str = "preprocess", error: type[StropError] = ManifestError) -> "Audio":
        """Return the description in a JSON or TOML object.

        Raises:
            StropError: (as ``error``) a field missing, of the wrong type or out of range, steps that need one that is
                left out, or an unknown key.
        """
        fields = Fields(document, where, error)
        fields.text("kind", among=("audio",))
        length = bounded(fields, "length", MAX_LENGTH)
        frame = bounded(fields, "frame", length) if "frame" in document else 0
        edges, window, mel, log = (fields.text(key, usual, among=among) for key, (usual, among) in _TEXTS.items())
        rate = bounded(fields, "rate_hz", _MAX_RATE)
        found = cls(
            rate_hz=rate,
            length=length,
            hop=bounded(fields, "hop", MAX_LENGTH, length),
            frame=frame,
            step=bounded(fields, "step", length) if frame else 0,
            fft=bounded(fields, "fft", _MAX_FFT, frame) if frame else 0,
            power=bounded(fields, "power", 2, 2),
            bands=bounded(fields, "bands", _MAX_BANDS) if "bands" in document else 0,
            low_hz=fields.number("low_hz", 0.0),
            high_hz=fields.number("high_hz", rate / 2 if "bands" in document else 0.0),
            offset=fields.number("offset", _OFFSET),
            coefficients=bounded(fields, "coefficients", _MAX_BANDS) if "coefficients" in document else 0,
            dct=fields.text("dct", "ortho", among=DCTS),
            scale=fields.number("scale", 1.0),
            edges=edges,
            window=window,
            mel=mel,
            log=log,
        )
        mean, std = check_factors(fields, (1, found.values), f"{found.values} values a frame")
        _check(found, fields, document)
        refuse_unknown(fields)
        return replace(found, mean=mean, std=std)


def _check(found: Audio, fields: Fields, document: Any) -> None:
    """Refuse what has no meaning: a step whose own input is missing, a band of no width."""

    def refuse(key: str, what: str, fix: str = "") -> None:
        raise fields.error(what, where=f"{fields.where}.{key}", fix=fix)

    needs = {
        "frame": ("step", "fft", "edges", "window", "power", "bands", "log", "coefficients"),
        "bands": ("low_hz", "high_hz", "mel", "coefficients"),
        "coefficients": ("dct",),
    }
    for needed, keys in needs.items():
        for key in keys:
            if key in document and needed not in document:
                refuse(key, f"there is no '{needed}'", f"add {needed}, or leave {key} out")
    if "offset" in document and found.log == "none":
        refuse("offset", "there is no 'log'", "add log, or leave offset out")
    if found.frame and found.fft < found.frame:
        refuse("fft", f"{found.fft} points for frames of {found.frame} samples")
    if found.frames * found.fft > _MAX_POINTS:
        refuse("step", f"{found.frames} frames of {found.fft} points", "use a longer step or a shorter clip")
    if found.bands and not 0 <= found.low_hz < found.high_hz <= found.rate_hz / 2:
        what = f"bands from {found.low_hz:g} to {found.high_hz:g} Hz at {found.rate_hz} Hz"
        refuse("high_hz", what, "keep 0 <= low_hz < high_hz <= rate_hz / 2")
    if found.coefficients > found.bands:
        refuse("coefficients", f"{found.coefficients} of {found.bands} bands")
    if found.log != "none" and found.offset <= 0:
        refuse("offset", f"{found.offset:g} does not keep the logarithm finite", "give a number above 0")
