# SPDX-License-Identifier: Apache-2.0
"""Pictures from a camera (V4L2), a video file or a network stream, through OpenCV."""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from edge_agent.runner.pictures import opencv
from edge_agent.runner.sources.base import Pushed, Taken, read_spec
from edge_contract.errors import DataError, UsageError

__all__ = ["CameraSource", "open_spec"]

_RETRY_S: Final = 2.0


class CameraSource(Pushed):
    """Reads pictures in a thread; of a camera only the newest one waits, of a video file none is lost.

    OpenCV gives blue first; the engine gets red, green, blue, as a view. A camera that gives nothing more is opened
    again every two seconds; a file ends.

    Args:
        name: Of the source.
        device: ``0`` for the first camera, ``/dev/video2``, a file, or an address that OpenCV's FFmpeg opens.
        wake: Makes the engine look.
        size: (width, height) to ask the camera for; it may give another.
        rate_hz: To ask the camera for; 0 for its own.
    """

    def __init__(
        self, name: str, device: str, wake: Callable[[], None], *, size: tuple[int, int] | None, rate_hz: float
    ) -> None:
        self._is_live = device.isdigit() or device.startswith("/dev/") or "://" in device
        super().__init__(name, wake, room=1 if self._is_live else 4, keeps_newest=self._is_live)
        self._cv2, self._device, self._size, self._rate_hz = opencv(), device, size, rate_hz
        self._count = 0
        self._asleep = threading.Event()
        capture = self._open()
        if not capture.isOpened():
            raise DataError(
                "gives no pictures", where=device, fix="is it there, and may this user read it (group video)?"
            )
        threading.Thread(target=self._feed, args=(capture,), name=f"source {name}", daemon=True).start()

    def _open(self) -> Any:
        cv2 = self._cv2
        capture = cv2.VideoCapture(int(self._device) if self._device.isdigit() else self._device)
        if self._size is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._size[1])
        if self._rate_hz:
            capture.set(cv2.CAP_PROP_FPS, self._rate_hz)
        return capture

    def _feed(self, capture: Any) -> None:
        while not self.is_closed:
            is_there, picture = capture.read()
            if is_there:
                self.push(Taken(f"{self.name}:{self._count}", picture[..., ::-1], time.monotonic()))
                self._count += 1
                continue
            capture.release()
            if not self._is_live:
                self.end()
                return
            self._asleep.wait(_RETRY_S)
            capture = self._open()
        capture.release()

    def close(self) -> None:
        super().close()
        self._asleep.set()


def open_spec(name: str, spec: dict[str, Any], now: float, wake: Callable[[], None]) -> CameraSource:
    """Open a camera or a video file.

    Raises:
        UsageError: What stands in the table.
        DataError: It gives no pictures.
        MissingDependencyError: OpenCV is not installed.
    """
    del now
    where = f"source '{name}'"
    f = read_spec(spec, where, "camera", ("device", "width", "height", "rate_hz"))
    size = (f.integer("width", 0, minimum=0), f.integer("height", 0, minimum=0))
    if (size[0] > 0) != (size[1] > 0):
        raise UsageError("a width without a height, or the reverse", where=where, fix="give both or neither")
    return CameraSource(
        name, f.text("device", "0"), wake, size=size if size[0] else None, rate_hz=f.number("rate_hz", 0.0)
    )
