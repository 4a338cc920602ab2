# SPDX-License-Identifier: Apache-2.0
"""The drift summary of one window: what a device sends instead of its inputs. Binary, version 1.

Layout, little-endian: a fixed header of 52 bytes, sections of (tag u8, length varint, content), CRC-32 of all
that. A reader skips and keeps sections that it does not know, so that later tasks add their own. The CRC finds
damage on disk or in memory; who sent the bytes is proved by the transport (mTLS), not by the summary.

    header      magic "Sd", version, flags, device 8, bundle 16, profile CRC 4, boot 4, window, start, duration
    1 totals    n_infer, n_sampled, n_err, n_drop
    2 class     slots, then class × confidence (the class counts are its row sums)
    3 max-prob  16 counts, sum
    4 energy    16 counts, sum, squares, blocks, lag, repeats
    5 embedding 8 sums, 8 squares
    6 input     3 × 16 counts, saturated shares
    7 latency   32 counts, sum
    8 health    24 bytes fixed
    9 CUSUM     7 × float16 and the number of windows

Sections 10 to 12, of other tasks, sensors and noise, are in ``edge_contract.sections``.
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Final

from edge_contract.counts import BINS, COMPONENTS, LATENCY_BUCKETS, LEVELS, MAX_SLOTS, Counters
from edge_contract.errors import SummaryError
from edge_contract.health import Health, clip
from edge_contract.packing import Cursor, pack_counts, pack_signed, pack_unsigned
from edge_contract.sections import NOISE, SENSORS, TABLES, completed, extras

__all__ = [
    "CHANNELS",
    "MAX_SUMMARY_BYTES",
    "Counters",
    "DriftSummary",
    "Flag",
    "Health",
    "decode",
    "decode_counters",
    "encode_counters",
    "short_hash",
]

MAX_SUMMARY_BYTES: Final = 2048
CHANNELS: Final = ("class", "class×confidence", "max-prob", "energy", "embedding", "input", "latency")
"""A classifier's channels in the order of the CUSUM section; of other tasks see ``edge_contract.tasks``."""

_MAGIC: Final = b"Sd"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<2sBB8s16sI4sIQI")
_CUSUM: Final = struct.Struct("<7eH")
_COUNTER_TAGS: Final = range(1, 8)
_MAX_CUSUM: Final = 60_000.0  # float16 ends at 65504


class Flag(IntFlag):
    """Remarks on a window."""

    NONE = 0
    PARTIAL = 1  # closed before 64 samples
    NOISED = 2  # differential-privacy noise was added
    CLOCK_UNSYNCED = 4
    THROTTLED = 8


@dataclass(frozen=True)
class DriftSummary:
    """One window of one device.

    Attributes:
        device: ``short_hash(device id, 8)``, 16 hexadecimal digits.
        bundle: The first 32 hexadecimal digits of the bundle's id.
        profile_crc: CRC-32 of the reference profile whose edges were used.
        boot: ``short_hash(boot id, 4)``, 8 hexadecimal digits.
        window: Number of the window on this device, growing.
        start_ms: Unix time of the start, milliseconds.
        duration_ms: Length.
        counters: What was counted.
        health: The board.
        cusum: CUSUM per channel of CHANNELS after this window (float16 on the wire).
        cusum_windows: Windows since the CUSUM began, at most 65535 on the wire.
        flags: Remarks.
        unrecognized: Sections of a newer writer, kept as (tag, content).
    """

    device: str
    bundle: str
    profile_crc: int
    boot: str
    window: int
    start_ms: int
    duration_ms: int
    counters: Counters
    health: Health = field(default_factory=Health)
    cusum: tuple[float, ...] = (0.0,) * len(CHANNELS)
    cusum_windows: int = 0
    flags: Flag = Flag.NONE
    unrecognized: tuple[tuple[int, bytes], ...] = field(default=(), compare=False)

    def encode(self) -> bytes:
        """Return the wire form.

        Raises:
            SummaryError: A field does not fit its place, or the whole exceeds 2048 bytes.
        """
        head = self._header()
        cusum = (clip(value, 0.0, _MAX_CUSUM) for value in self.cusum)
        tail = _section(8, self.health.pack()) + _section(9, _CUSUM.pack(*cusum, min(self.cusum_windows, 65535)))
        extra = b"".join(_section(tag, content) for tag, content in self.unrecognized)
        body = head + encode_counters(self.counters) + tail + extra
        data = body + struct.pack("<I", zlib.crc32(body))
        if len(data) > MAX_SUMMARY_BYTES:
            fix = "close windows earlier"
            raise SummaryError(f"{len(data)} bytes, more than {MAX_SUMMARY_BYTES}", where="summary", fix=fix)
        return data

    def _header(self) -> bytes:
        try:
            ids = bytes.fromhex(self.device), bytes.fromhex(self.bundle), bytes.fromhex(self.boot)
            if [len(i) for i in ids] != [8, 16, 4] or len(self.cusum) != len(CHANNELS):
                raise ValueError("ids of 16, 32 and 8 hexadecimal digits and seven CUSUM values are needed")
            return _HEADER.pack(
                _MAGIC,
                _VERSION,
                int(self.flags) & 0xFF,
                ids[0],
                ids[1],
                self.profile_crc,
                ids[2],
                self.window,
                self.start_ms,
                min(self.duration_ms, 0xFFFFFFFF),
            )
        except (ValueError, struct.error) as error:
            raise SummaryError(f"a header field does not fit: {error}", where="summary") from error


def short_hash(text: str, size: int) -> str:
    """Return the first ``size`` bytes of the SHA-256 of a text, in hexadecimal.

    Example:
        >>> short_hash("pi-7", 4)
        '60f3d0d4'
    """
    return hashlib.sha256(text.encode()).digest()[:size].hex()


def decode(data: bytes) -> DriftSummary:
    """Return the summary in its wire form.

    Raises:
        SummaryError: Cut short, damaged, of another version, or counters that contradict each other.
    """
    if not _HEADER.size + 4 < len(data) <= MAX_SUMMARY_BYTES:
        raise SummaryError(f"{len(data)} bytes cannot be a summary", where="summary")
    magic, version, flags, device, bundle, crc, boot, window, start, duration = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != _VERSION:
        raise SummaryError(
            f"version {version} is unknown, we read {_VERSION}", where="summary", fix="update the server"
        )
    body = data[:-4]
    if zlib.crc32(body) != int.from_bytes(data[-4:], "little"):
        raise SummaryError("the checksum does not fit: the bytes are damaged", where="summary")
    sections = _sections(body[_HEADER.size :])
    known = {*_COUNTER_TAGS, 8, 9, TABLES, SENSORS, NOISE}
    return DriftSummary(
        device=device.hex(),
        bundle=bundle.hex(),
        profile_crc=crc,
        boot=boot.hex(),
        window=window,
        start_ms=start,
        duration_ms=duration,
        counters=_counters(sections),
        health=Health.unpack(sections[8]) if 8 in sections else Health(),
        cusum=_cusum(sections.get(9))[0],
        cusum_windows=_cusum(sections.get(9))[1],
        flags=Flag(flags),
        unrecognized=tuple((tag, content) for tag, content in sections.items() if tag not in known),
    )


def encode_counters(counters: Counters) -> bytes:
    """Return the counters alone, without header and CRC: sections 1 to 7, and 10 to 12 where they say something."""
    c = counters if counters.noise == (0, 0) else _shown(counters)
    embedded = pack_signed(c.embedding_sum) + pack_unsigned(c.embedding_squares)
    looked = pack_counts(c.brightness) + pack_counts(c.contrast) + pack_counts(c.sharpness)
    parts = (
        pack_unsigned((c.n_infer, c.n_sampled, c.n_err, c.n_drop)),
        pack_unsigned((c.slots,)) + pack_counts(c.cells),
        pack_counts(c.confidence) + pack_unsigned((c.confidence_sum,)),
        pack_counts(c.energy) + _energy_moments(c),
        embedded if any(c.embedding_squares) else b"",
        looked + pack_unsigned((c.dark, c.bright)) if any(c.brightness) else b"",
        pack_counts(c.latency) + pack_unsigned((c.latency_sum_us,)),
    )
    common = b"".join(_section(tag, part) for tag, part in zip(_COUNTER_TAGS, parts, strict=True))
    return common + b"".join(_section(tag, part) for tag, part in extras(counters).items())


def _shown(counters: Counters) -> Counters:
    """Return what an older reader sees of a noised window: what was inferred, and nothing of it."""
    return counters.emptied(n_infer=counters.n_infer, n_err=counters.n_err, n_drop=counters.n_drop)


def decode_counters(data: bytes) -> Counters:
    """Return the counters of ``encode_counters``.

    Raises:
        SummaryError: Malformed.
    """
    return _counters(_sections(data))


def _energy_moments(c: Counters) -> bytes:
    signed = pack_signed((c.energy_sum, c.block_sum, c.lag))
    return signed + pack_unsigned((c.energy_squares, c.blocks, c.block_squares, c.pairs, c.repeats))


def _counters(sections: dict[int, bytes]) -> Counters:
    missing = [tag for tag in _COUNTER_TAGS if tag not in sections]
    if missing:
        raise SummaryError(f"section {missing[0]} is missing", where="summary")
    cursors = {tag: Cursor(sections[tag], f"summary section {tag}") for tag in _COUNTER_TAGS}
    totals, cells, sure, energy, embedded, looked, timed = cursors.values()
    values: dict[str, int | tuple[int, ...]] = dict(
        zip(("n_infer", "n_sampled", "n_err", "n_drop"), (totals.unsigned() for _ in range(4)), strict=True)
    )
    slots = cells.unsigned()
    if not 1 <= slots <= MAX_SLOTS:
        raise SummaryError(f"{slots} class slots, not 1 .. {MAX_SLOTS}", where="summary section 2")
    values["cells"] = cells.counts(slots * LEVELS)
    values["confidence"], values["confidence_sum"] = sure.counts(BINS), sure.unsigned()
    values["energy"] = energy.counts(BINS)
    values |= {name: energy.signed() for name in ("energy_sum", "block_sum", "lag")}
    values |= {name: energy.unsigned() for name in ("energy_squares", "blocks", "block_squares", "pairs", "repeats")}
    with_embedding, with_input = not embedded.ended, not looked.ended
    values["embedding_sum"] = tuple(embedded.signed() if with_embedding else 0 for _ in range(COMPONENTS))
    values["embedding_squares"] = tuple(embedded.unsigned() if with_embedding else 0 for _ in range(COMPONENTS))
    for name in ("brightness", "contrast", "sharpness"):
        values[name] = looked.counts(BINS) if with_input else (0,) * BINS
    values |= {name: looked.unsigned() if with_input else 0 for name in ("dark", "bright")}
    values["latency"], values["latency_sum_us"] = timed.counts(LATENCY_BUCKETS), timed.unsigned()
    if not all(cursor.ended for cursor in cursors.values()):
        raise SummaryError("a section is longer than its content", where="summary")
    counters = completed(Counters(**values), sections)  # type: ignore[arg-type]
    counters.check()
    return counters


def _section(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + pack_unsigned((len(content),)) + content


def _sections(data: bytes) -> dict[int, bytes]:
    cursor, found = Cursor(data), dict[int, bytes]()
    while not cursor.ended:
        tag = cursor.take(1)[0]
        if tag in found:
            raise SummaryError(f"section {tag} stands twice", where="summary")
        found[tag] = cursor.take(cursor.unsigned())
    return found


def _cusum(content: bytes | None) -> tuple[tuple[float, ...], int]:
    if content is None:
        return (0.0,) * len(CHANNELS), 0
    if len(content) != _CUSUM.size:
        raise SummaryError(f"CUSUM of {len(content)} bytes, not {_CUSUM.size}", where="summary")
    *values, windows = _CUSUM.unpack(content)
    if not all(0.0 <= value <= _MAX_CUSUM for value in values):
        raise SummaryError(f"a CUSUM value is not within 0 .. {_MAX_CUSUM:.0f}", where="summary")
    return tuple(values), windows
