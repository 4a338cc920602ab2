# SPDX-License-Identifier: Apache-2.0
"""Look at each raw input before the model does: shape, type, range, NaN, stale frames and stuck sensors.

Theory of operation: what a good input costs decides the design. Shape and type are compared with the last good pair;
only a new pair is tried out, on noughts, by the very code that prepares real inputs. Values are looked at only where
the type could hold wrong ones. A stuck sensor is found by comparing a few hundred values with those of the input
before; only when they are equal is everything hashed.
"""

import time
import zlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.counters import Tallies
from edge_agent.runner.preprocess import apply
from edge_agent.runner.tensors import encode
from edge_contract.artefact import TensorSpec
from edge_contract.errors import StropError
from edge_contract.input_contract import VIOLATIONS, InputContract
from edge_contract.preprocess import Preprocessing

__all__ = ["FORM", "REPORT_EVERY_S", "Guard", "Seen"]

Array = NDArray[Any]
FORM: Final = frozenset({"shape", "dtype"})
"""Faults that the model itself stumbles over: they are errors of the pair of source and model, not of one moment."""
REPORT_EVERY_S: Final = 60.0
_SIDE: Final = 16
_KNOWN: Final = 16


class Seen:
    """What a look found: the input as the model may see it, or why it may not.

    Attributes:
        raw: The input, mended where the policy is ``clamp``.
        fault: One word of ``VIOLATIONS`` that refuses it, or empty.
        reason: The same in plain words.
    """

    __slots__ = ("fault", "raw", "reason")

    def __init__(self, raw: Array, fault: str = "", reason: str = "") -> None:
        self.raw, self.fault, self.reason = raw, fault, reason


class Guard:
    """Checks the inputs of one stream. Not thread-safe.

    Args:
        contract: What the manifest promises; None: shape, type and finite numbers alone.
        preprocess, spec: How inputs are prepared, and for which tensor.
        clock: Seconds of the clock that the time of an input is told in.

    Example:
        >>> from edge_contract.preprocess import Preprocess
        >>> spec = TensorSpec("x", "input", (1, 2, 2, 1), "int8", "NHWC", scale=1.0, zero_point=-128)
        >>> guard = Guard(None, Preprocess(), spec)
        >>> guard.look(np.zeros((2, 2), np.uint8)).fault, guard.look(np.zeros((3, 2), np.uint8)).fault
        ('', 'shape')
    """

    def __init__(
        self,
        contract: InputContract | None,
        preprocess: Preprocessing,
        spec: TensorSpec,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._contract = contract or InputContract()
        self._preprocess, self._spec, self._clock = preprocess, spec, clock
        self._policy = self._contract.policy
        self._forms: dict[tuple[Any, Any], tuple[str, str]] = {}
        self._good: tuple[Any, Any] = ((), None)
        self._has_loose_values = False
        self._step: tuple[slice, ...] = ()
        self._last, self._whole, self._run = b"", 0, 0
        self._taken_at: float | None = None
        self._watches = bool(self._contract.stuck_after) or not self._contract.may_be_flat
        self._counts = dict.fromkeys((*VIOLATIONS, "refused", "clamped"), 0)
        self._news: dict[str, int] = {}
        self._last_reason, self._told_at = "", float("-inf")

    def look(self, raw: Array, taken_at: float | None = None) -> Seen:
        """Return the input as the model may see it, or what is wrong with it.

        Args:
            raw: One raw input.
            taken_at: When it was taken, on the guard's clock; None where nobody knows.
        """
        form = (raw.shape, raw.dtype) if isinstance(raw, np.ndarray) else (type(raw), None)
        if form != self._good:
            fault, reason = self._forms.get(form) or self._try(form)
            if fault:
                return self._found(Seen(raw, fault, reason))
            self._take_form(form)
        if not (self._has_loose_values or self._watches or taken_at is not None):
            return Seen(raw)
        seen = Seen(raw)
        if self._has_loose_values:
            seen = self._values(seen)
        if taken_at is not None:
            seen = self._age(seen, taken_at)
        return self._stuck(seen) if self._watches else seen

    def tallies(self, cache: tuple[int, int] = (0, 0)) -> Tallies:
        """Return the counts, with (hits, look-ups) of the result cache."""
        return Tallies(**self._counts, cache_hits=cache[0], cache_lookups=cache[1])

    def news(self, now: float) -> dict[str, Any] | None:
        """Return an event about violations that nobody was told of; at most one a minute."""
        if not self._news or now - self._told_at < REPORT_EVERY_S:
            return None
        counted, self._news, self._told_at = self._news, {}, now
        kinds = ", ".join(f"{n} {kind}" for kind, n in counted.items())
        return {"event": "input", "name": kinds, "policy": self._policy, "reason": self._last_reason, **counted}

    def _found(self, seen: Seen) -> Seen:
        """Count a violation, and decide by the policy whether it refuses."""
        self._count(seen.fault, seen.reason)
        if self._policy == "pass":
            return Seen(seen.raw)
        self._counts["refused"] += 1
        return seen

    def _count(self, fault: str, reason: str) -> None:
        self._counts[fault] += 1
        self._news[fault] = self._news.get(fault, 0) + 1
        self._last_reason = reason

    def _try(self, form: tuple[Any, Any]) -> tuple[str, str]:
        """Prepare noughts of a form that is new; remember what became of it."""
        shape, dtype = form
        if dtype is None or dtype.kind not in "uif":
            found = ("dtype", f"an input of type {dtype if dtype is not None else shape.__name__}, not of numbers")
        else:
            try:
                encode(self._spec, apply(self._preprocess, np.zeros(shape, dtype))[None])
                found = ("", "")
            except StropError as error:
                found = ("shape", error.what)
            except ValueError as error:
                found = ("shape", f"{dtype} {list(shape)}: {error}")
        if len(self._forms) >= _KNOWN:
            self._forms.clear()
        self._forms[form] = found
        return found

    def _take_form(self, form: tuple[Any, Any]) -> None:
        self._good = form
        shape, dtype = form
        self._step = tuple(slice(None, None, max(1, side // _SIDE)) for side in shape[:2])
        self._last, self._run = b"", 0
        low, high = self._contract.minimum, self._contract.maximum
        if dtype.kind == "f":
            self._has_loose_values = True
        else:
            limits = np.iinfo(dtype)
            self._has_loose_values = (low is not None and low > limits.min) or (high is not None and high < limits.max)

    def _values(self, seen: Seen) -> Seen:
        """Judge the numbers themselves."""
        raw, contract = seen.raw, self._contract
        if not raw.size:
            return seen
        low, high = float(raw.min()), float(raw.max())
        least = contract.minimum if contract.minimum is not None else float("-inf")
        most = contract.maximum if contract.maximum is not None else float("inf")
        is_finite = low - low == 0.0 and high - high == 0.0  # NaN and infinities are not equal to nought here
        if is_finite and least <= low and high <= most:
            return seen
        if not is_finite:
            fault, reason = "nan", "values that are not finite"
        else:
            fault, reason = "range", f"values from {low:g} to {high:g}, allowed are {least:g} to {most:g}"
        if self._policy != "clamp":
            return self._found(Seen(raw, fault, reason))
        self._count(fault, reason)
        self._counts["clamped"] += 1
        return Seen(_mended(raw, contract))

    def _age(self, seen: Seen, taken_at: float) -> Seen:
        """Judge when the input was taken; the same time twice is the same frame twice."""
        before, self._taken_at = self._taken_at, taken_at
        if seen.fault:
            return seen
        if before is not None and taken_at <= before:
            return self._found(Seen(seen.raw, "stale", f"taken {before - taken_at:.3f} s before the one before it"))
        age, most = self._clock() - taken_at, self._contract.max_age_s
        if most and age > most:
            return self._found(Seen(seen.raw, "stale", f"{age:.3f} s old, allowed are {most:g}"))
        return seen

    def _stuck(self, seen: Seen) -> Seen:
        """Judge whether the sensor still sees anything."""
        contract = self._contract
        sample = seen.raw[self._step].tobytes()
        if sample == self._last:
            whole = zlib.crc32(np.ascontiguousarray(seen.raw).data)
            self._run = self._run + 1 if self._run < 2 or whole == self._whole else 1
            self._whole = whole
        else:
            self._last, self._run = sample, 1
        if seen.fault:
            return seen
        if contract.stuck_after and self._run >= contract.stuck_after:
            return self._found(Seen(seen.raw, "stuck", f"{self._run} identical inputs in a row"))
        if not contract.may_be_flat and sample == sample[: seen.raw.itemsize] * (len(sample) // seen.raw.itemsize):
            low, high = seen.raw.min(), seen.raw.max()
            if low == high:
                return self._found(Seen(seen.raw, "stuck", f"all values are {float(low):g}"))
        return seen


def _mended(raw: Array, contract: InputContract) -> Array:
    """Return the input with each value moved into the range; NaN becomes the lowest allowed value, or 0."""
    low, high = contract.minimum, contract.maximum
    if raw.dtype.kind == "f":
        limits = np.finfo(raw.dtype)
        least, most = low if low is not None else limits.min, high if high is not None else limits.max
        raw = np.nan_to_num(raw, nan=low if low is not None else 0.0, posinf=most, neginf=least)
    return raw if low is None and high is None else np.clip(raw, low, high).astype(raw.dtype)
