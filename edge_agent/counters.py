# SPDX-License-Identifier: Apache-2.0
"""Counters that the runner writes and the control process reads, through one small memory-mapped file.

Theory of operation: the file holds two copies. The writer fills the copy that is *not* the newest, and sets its
checksum and generation last; the reader takes the newest copy whose CRC fits. So a reader never sees half of an
update, a runner that is killed in the middle of one leaves the copy before it, and neither waits for the other.
(A sequence lock alone would leave nothing to read after such a kill, and would need memory barriers that Python
cannot give on ARM; a CRC needs none.)

``create`` makes a new file and renames it into place, with a new epoch: counters of different epochs must not be
subtracted. Behind the counters, which are what drift is judged by,
each copy holds ``Tallies``, what the input contract and the result cache did, and a fine histogram of inference times
(``edge_contract.latency``). Two copies of a ten-class model take about 7 KB.
"""

import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

from edge_contract.counts import MAX_SLOTS, PLAIN, Counters
from edge_contract.errors import StoreError, SummaryError
from edge_contract.latency import BUCKETS
from edge_contract.tasks import MAX_OUTPUTS, TASKS, Form

__all__ = ["CounterFile", "Reading", "Tallies"]

_MAGIC: Final = b"StropCn3"
_OF_A_TASK: Final = b"StropCn4"
"""Of a model that is no classifier, or that has sensors: what its counters hold stands behind the head."""
_WITHOUT_TIMES: Final = b"StropCn2"
_WITHOUT_TALLIES: Final = b"StropCn1"
"""What earlier runners wrote; a control process may meet one of them during its own update."""
_HEAD: Final = struct.Struct("<8sQ32sI4x")  # magic, epoch, bundle id, class slots
_FORM: Final = struct.Struct(f"<BBB{MAX_OUTPUTS}H5x")  # task, sensors, tables, and the size of each
_COPY: Final = struct.Struct("<QI4x")  # generation, CRC-32 of generation and counters
_ATTEMPTS: Final = 20


class Tallies(NamedTuple):
    """Inputs that broke the input contract, by what was wrong, and what was done; look-ups of the result cache.

    Attributes:
        shape, dtype, nan, range, stale, stuck: Inputs with this fault; one input may have several.
        refused, clamped: Inputs that the model did not see; that it saw only after they were mended.
        cache_hits, cache_lookups: Answers from the result cache, and how often it was asked.
    """

    shape: int = 0
    dtype: int = 0
    nan: int = 0
    range: int = 0
    stale: int = 0
    stuck: int = 0
    refused: int = 0
    clamped: int = 0
    cache_hits: int = 0
    cache_lookups: int = 0

    def facts(self) -> dict[str, int]:
        """Return what is not nought, by the names that a metric row uses.

        Example:
            >>> Tallies(stuck=2, refused=2).facts()
            {'input_stuck': 2, 'input_refused': 2}
        """
        named = {(key if key.startswith("cache") else f"input_{key}"): n for key, n in self._asdict().items()}
        return {key: n for key, n in named.items() if n}


_NONE: Final = Tallies()
_NO_TIMES: Final = (0,) * BUCKETS


class Reading(NamedTuple):
    """What a reader finds: since the epoch began, for one bundle; ``times`` is empty where an older runner writes."""

    epoch: int
    bundle: str
    counters: Counters
    tallies: Tallies = _NONE
    times: tuple[int, ...] = ()


class CounterFile:
    """The file at ``path``. The runner creates and writes; anyone reads.

    Example:
        >>> import tempfile, pathlib
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name) / "counters.bin"
        >>> with CounterFile.create(path, classes=10, bundle="ab" * 32) as file:
        ...     file.write(Counters.zero(10))
        >>> CounterFile(path).read().bundle[:4]
        'abab'
        >>> folder.cleanup()
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map: mmap.mmap | None = None
        self._slots = self._generation = 0
        self._form = PLAIN

    @classmethod
    def create(cls, path: Path, classes: int, bundle: str, form: Form = PLAIN) -> "CounterFile":
        """Start a new epoch: replace the file by one that has counted nothing.

        Args:
            path: The file; its folder must exist.
            classes: Classes of the model.
            bundle: The bundle's id, 64 hexadecimal digits, or empty when there is none.
            form: What is counted beside classes.

        Raises:
            StoreError: The file cannot be made.
        """
        zero, magic = Counters.zero(classes, form), _MAGIC if form == PLAIN else _OF_A_TASK
        head = _HEAD.size + _form_size(magic)
        size = head + 2 * _copy_size(zero.slots, form)
        epoch = int.from_bytes(os.urandom(6), "little")  # never equal to the last one, even when that file is gone
        fresh = path.with_name(f"{path.name}.{epoch:012x}")
        file = cls(path)
        try:
            with fresh.open("w+b") as handle:
                handle.truncate(size)
                file._map = mmap.mmap(handle.fileno(), size)
            file._map[: _HEAD.size] = _HEAD.pack(magic, epoch, bytes.fromhex(bundle or "00" * 32), zero.slots)
            file._map[_HEAD.size : head] = _packed(form)[: _form_size(magic)]
            file._slots, file._form = zero.slots, form
            file.write(zero)
            fresh.replace(path)
        except (OSError, ValueError, struct.error) as error:
            file.close()
            fresh.unlink(missing_ok=True)
            raise StoreError(f"cannot make the counter file: {error}", where=str(path)) from error
        return file

    def write(self, counters: Counters, tallies: Tallies = _NONE, times: Sequence[int] = _NO_TIMES) -> None:
        """Publish the counters (everything since ``create``), in tens of microseconds and without a system call.

        Args:
            counters: What was seen.
            tallies: What the input contract and the cache did.
            times: Fine histogram of inference times [latency.BUCKETS].

        Raises:
            StoreError: The file was not made by ``create``, or has other class slots.
        """
        if self._map is None or counters.slots != self._slots or counters.form != self._form:
            fix = f"create it for {counters.slots} class slots"
            raise StoreError(f"the file takes {self._slots} class slots", where=str(self.path), fix=fix)
        generation = self._generation + 1
        numbers = [*counters.to_vector(), *tallies, *times]
        content = struct.pack(f"<{len(numbers)}q", *numbers)
        crc = zlib.crc32(content, zlib.crc32(generation.to_bytes(8, "little")))
        head = _HEAD.size + (0 if self._form == PLAIN else _FORM.size)
        at = head + generation % 2 * _copy_size(self._slots, self._form)
        body = at + _COPY.size
        self._map[body : body + len(content)] = content
        self._map[at:body] = _COPY.pack(generation, crc)
        self._generation = generation

    def read(self) -> Reading | None:
        """Return the newest whole set of counters, or None when there is no file or nothing whole in it."""
        for _ in range(_ATTEMPTS):  # only a writer that updates twice within one read makes another attempt needed
            try:
                data = self.path.read_bytes()
            except OSError:
                return None
            reading = _parse(data)
            if reading is not None:
                return reading
        return None

    def close(self) -> None:
        """Unmap the file; it stays on disk."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


_BEHIND: Final = {
    _OF_A_TASK: len(Tallies._fields) + BUCKETS,
    _MAGIC: len(Tallies._fields) + BUCKETS,
    _WITHOUT_TIMES: len(Tallies._fields),
    _WITHOUT_TALLIES: 0,
}
"""How many numbers stand behind the counters."""


def _copy_size(slots: int, form: Form = PLAIN, magic: bytes = _MAGIC) -> int:
    return _COPY.size + 8 * (Counters.length(slots, form) + _BEHIND[magic])


def _form_size(magic: bytes) -> int:
    return _FORM.size if magic == _OF_A_TASK else 0


def _packed(form: Form) -> bytes:
    sizes = (*form.tables, *[0] * (MAX_OUTPUTS - len(form.tables)))
    return _FORM.pack(TASKS.index(form.task), form.sensors, len(form.tables), *sizes)


def _read_form(magic: bytes, data: bytes) -> Form | None:
    """Return what the counters hold; None where that cannot be."""
    if magic != _OF_A_TASK:
        return PLAIN
    if len(data) < _HEAD.size + _FORM.size:
        return None
    task, sensors, count, *sizes = _FORM.unpack_from(data, _HEAD.size)
    if task >= len(TASKS) or count > MAX_OUTPUTS:
        return None
    try:
        return Form(TASKS[task], tuple(sizes[:count]), sensors).check()
    except SummaryError:
        return None


def _parse(data: bytes) -> Reading | None:
    if len(data) < _HEAD.size:
        return None
    magic, epoch, bundle, slots = _HEAD.unpack_from(data)
    if magic not in _BEHIND or not 1 <= slots <= MAX_SLOTS:
        return None
    form = _read_form(magic, data)
    if form is None:
        return None
    size, head = _copy_size(slots, form, magic), _HEAD.size + _form_size(magic)
    if len(data) != head + 2 * size:
        return None
    copies = [data[head + i * size : head + (i + 1) * size] for i in (0, 1)]
    newest = max((found for copy in copies if (found := _whole(copy)) is not None), default=None)
    if newest is None:
        return None
    numbers, length = struct.unpack(f"<{len(newest[1]) // 8}q", newest[1]), Counters.length(slots, form)
    behind = length + len(Tallies._fields)
    counters, tallies = Counters.from_vector(slots, numbers[:length], form), Tallies(*numbers[length:behind])
    return Reading(epoch, "" if bundle == bytes(32) else bundle.hex(), counters, tallies, numbers[behind:])


def _whole(copy: bytes) -> tuple[int, bytes] | None:
    generation, crc = _COPY.unpack_from(copy)
    content = copy[_COPY.size :]
    if not generation or zlib.crc32(content, zlib.crc32(generation.to_bytes(8, "little"))) != crc:
        return None
    return generation, content
