# SPDX-License-Identifier: Apache-2.0
"""Frames from a byte stream, such as a named pipe that a camera program fills.

Two forms. ``npy``: each frame is four bytes of length (big-endian) and an .npy file. ``raw``: each frame is the bytes
of one array whose shape and type are declared; nothing stands between two of them.
"""

import os
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from edge_agent.runner.array_bytes import dtype_of, from_npy, reshaped
from edge_agent.runner.sources.base import Pushed, Taken, read_spec
from edge_contract.errors import DataError, UsageError

__all__ = ["Form", "FramesSource", "form_of", "frames", "open_spec"]

Array = NDArray[Any]
MAX_FRAME: Final = 64 * 1024 * 1024
_LENGTH: Final = struct.Struct(">I")
_PAUSE_S: Final = 0.2


class Stream(Protocol):
    """What frames are read from."""

    def read(self, size: int, /) -> bytes: ...


class Form:
    """How the bytes of a stream become frames: by a declared shape and type, or by each frame's own word."""

    def __init__(self, shape: tuple[int, ...] = (), dtype: str = "uint8") -> None:
        self.shape, self.dtype = shape, dtype_of(dtype)
        self.size = self.dtype.itemsize
        for side in shape:
            self.size *= side
        if shape and not 0 < self.size <= MAX_FRAME:
            raise UsageError(f"a frame of {self.size} bytes", where="shape", fix=f"use 1 to {MAX_FRAME}")


def frames(stream: Stream, form: Form) -> Iterator[Array]:
    """Yield each frame of a stream until it ends.

    Raises:
        DataError: It ends inside a frame; or a frame is no array, or longer than ``MAX_FRAME``. After that nobody
            knows where the next one begins.

    Example:
        >>> import io
        >>> [frame.tolist() for frame in frames(io.BytesIO(bytes(range(4))), Form((2,)))]
        [[0, 1], [2, 3]]
    """
    while head := _read(stream, form.size if form.shape else _LENGTH.size):
        if form.shape:
            yield reshaped(head, form.shape, form.dtype)
            continue
        (size,) = _LENGTH.unpack(head)
        if size > MAX_FRAME:
            raise DataError(f"a frame of {size} bytes, more than {MAX_FRAME}", where="stream")
        data = _read(stream, size)
        if len(data) != size:
            raise DataError("the stream ends inside a frame", where="stream")
        yield from_npy(data)


def _read(stream: Stream, size: int) -> bytes:
    """Return exactly so many bytes, or nothing at the stream's end."""
    parts, left = [], size
    while left:
        part = stream.read(left)
        if not part:
            if left < size:
                raise DataError(f"the stream ends inside a frame, {left} bytes early", where="stream")
            return b""
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


class FramesSource(Pushed):
    """Frames of a file or a named pipe; of a pipe the next writer goes on where one has left."""

    def __init__(self, name: str, path: Path, form: Form, wake: Callable[[], None], *, keeps_newest: bool) -> None:
        super().__init__(name, wake, room=2, keeps_newest=keeps_newest)
        try:
            self._is_pipe = stat.S_ISFIFO(path.stat().st_mode)
        except OSError as error:
            reason = error.strerror or str(error)
            raise DataError(reason, where=str(path), fix=f"make it: mkfifo {path}") from error
        self._path, self._form, self._count = path, form, 0
        self._asleep = threading.Event()
        threading.Thread(target=self._feed, name=f"source {name}", daemon=True).start()

    def _feed(self) -> None:
        while not self.is_closed:
            try:
                with self._path.open("rb") as stream:  # of a pipe: waits for a writer
                    for frame in frames(stream, self._form):
                        if not self.push(Taken(f"{self.name}:{self._count}", frame)):
                            return
                        self._count += 1
            except (DataError, OSError) as error:
                bad: Any = str(error)  # no array: counted as an error, with its reason's place
                self.push(Taken(f"{self.name}:{self._count}", bad))
            if not self._is_pipe:
                self.end()
                return
            self._asleep.wait(_PAUSE_S)

    def close(self) -> None:
        super().close()
        self._asleep.set()
        if self._is_pipe:  # a thread that waits for a writer gets one that says nothing
            try:
                os.close(os.open(self._path, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                return


def form_of(kind: str, shape: tuple[int, ...], dtype: str) -> Form:
    """Return a form by its words; raises UsageError when ``raw`` has no shape, or ``npy`` has one."""
    if (kind == "raw") != bool(shape):
        fix = "give shape with raw, and leave it out with npy"
        raise UsageError(f"form '{kind}' {'with' if shape else 'without'} a shape", where="frames", fix=fix)
    return Form(shape, dtype)


def open_spec(name: str, spec: dict[str, Any], now: float, wake: Callable[[], None]) -> FramesSource:
    """Open a stream; raises UsageError or DataError."""
    del now
    f = read_spec(spec, f"source '{name}'", "frames", ("path", "form", "shape", "dtype", "keep_newest"))
    form = form_of(f.text("form", "npy", among=("npy", "raw")), f.integers("shape", []), f.text("dtype", "uint8"))
    return FramesSource(name, Path(f.text("path")), form, wake, keeps_newest=f.flag("keep_newest", False))
