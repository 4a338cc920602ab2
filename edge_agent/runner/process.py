# SPDX-License-Identifier: Apache-2.0
"""The runner process: ``python -m edge_agent.runner.process --runtime litert --counters FILE``.

Commands come as JSON lines on stdin, events leave as JSON lines on stdout, words for people on stderr. One thread
infers; another one only reads. The process ends when stdin closes (its parent is gone), when nobody reads stdout any
more, at ``stop`` and at SIGTERM; a native crash ends it too, and the control process then starts a new one.
"""

import argparse
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

from edge_agent.runner.commands import MAX_LINE_BYTES, parse
from edge_agent.runner.engine import Engine, Settings
from edge_agent.runner.runtimes import runtime_version
from edge_agent.runner.watchdog import EXIT_HUNG, STUCK_S, Watchdog
from edge_contract.errors import DeviceError, MessageError, StropError
from edge_contract.manifest import RUNTIMES

__all__ = ["main"]

_STDIN: Final = 0
_CHUNK: Final = 65536
_TPU_TIMEOUT_S: Final = 5.0
_END: Final = None
_WAKE: Final = b""
"""No command: look again at what is due."""
Inbox = SimpleQueue[bytes | None]


class Events:
    """The one writer of stdout. Descriptor 1 itself is turned to stderr, so that no library can write between events.

    Raises:
        BrokenPipeError: Nobody reads any more.
    """

    def __init__(self) -> None:
        self.descriptor = os.dup(1)
        os.dup2(2, 1)

    def emit(self, event: dict[str, Any]) -> None:
        """Write one event as one line."""
        line = json.dumps(event, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        while line:
            line = line[os.write(self.descriptor, line) :]


def lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    r"""Return whole lines of a byte stream; of one that is too long, only a piece that is too long to be a command.

    Example:
        >>> list(lines(iter([b"a", b"b\nc", b"\nrest"])))
        [b'ab', b'c']
    """
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        if len(rest) > MAX_LINE_BYTES:
            rest = rest[: MAX_LINE_BYTES + 1]  # stays too long: refused as one command when its line ends


def _chunks(events: int) -> Iterator[bytes]:
    """Return what stdin gives until it closes, or until nobody reads the events.

    ``os.read`` and not ``sys.stdin``: a thread that waits inside a buffered reader makes the interpreter abort at exit.
    """
    poll = select.poll()
    poll.register(_STDIN, select.POLLIN)
    poll.register(events, 0)  # an error on it is reported without being asked for
    while True:
        ready = dict(poll.poll())
        if events in ready:
            return
        chunk = os.read(_STDIN, _CHUNK)
        if not chunk:
            return
        yield chunk


def _read(inbox: Inbox, events: int) -> None:
    for line in lines(_chunks(events)):
        if line.strip():
            inbox.put(line)
    inbox.put(_END)


def _next(inbox: Inbox, wait_s: float | None) -> bytes | None:
    """Return the next line, empty when none came in time, None at the end."""
    try:
        return inbox.get(timeout=wait_s) if wait_s != 0 else inbox.get_nowait()
    except Empty:
        return b""


def _obey(engine: Engine, line: bytes, events: Events) -> bool:
    try:
        command = parse(line)
    except MessageError as error:
        events.emit({"event": "command_failed", "reason": str(error)})
        return True
    return engine.obey(command)


def serve(settings: Settings, inbox: Inbox, events: Events, dog: Watchdog) -> None:
    """Obey and infer until the end; what is left is sent before."""
    engine = Engine(settings, events.emit, time.monotonic, lambda: inbox.put(_WAKE), dog)
    events.emit(
        {
            "event": "ready",
            "runtime": settings.runtime,
            "runtime_version": runtime_version(settings.runtime),
            "pid": os.getpid(),
        }
    )
    while (line := _next(inbox, engine.wait_s())) is not _END:
        if line and not _obey(engine, line, events):
            break
        engine.work()
    engine.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, 1 (refused, nobody listens), 2 (wrong usage) or 75 (no device)."""
    options = _parser().parse_args(arguments)
    inbox: Inbox = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: inbox.put(_END))  # SimpleQueue.put may be called from a handler
    events = Events()
    try:
        runtime_version(options.runtime)  # a missing runtime is said before anything is promised
        threading.Thread(target=_read, args=(inbox, events.descriptor), daemon=True).start()
        how = (options.threads, options.target, options.cache, options.delegate)
        serve(Settings(options.runtime, options.counters, *how), inbox, events, _dog(options, events))
    except BrokenPipeError:
        print("runner: nobody reads the events", file=sys.stderr)
        return 1
    except StropError as error:
        if options.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, DeviceError):
            events.emit({"event": "hung", "reason": str(error)})
            return EXIT_HUNG
        return error.exit_code
    return 0


def _dog(options: argparse.Namespace, events: Events) -> Watchdog:
    """Return what ends this process when an accelerator hangs; on a CPU only where it is asked for."""
    default = _TPU_TIMEOUT_S if options.runtime == "edgetpu" else 0.0
    timeout_s = default if options.invoke_timeout is None else options.invoke_timeout
    report = lambda reason: events.emit({"event": "hung", "reason": reason})  # noqa: E731
    return Watchdog(timeout_s, report, stuck_s=options.stuck_timeout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edge_agent.runner.process",
        description="Infer from a source with an active model and perhaps a shadow. "
        "Commands are JSON lines on stdin, events JSON lines on stdout.",
        epilog='Example: echo \'{"cmd":"load","role":"active","folder":"bundle"}\' | '
        "python -m edge_agent.runner.process --runtime litert --counters counters.bin",
    )
    parser.add_argument("--runtime", required=True, choices=RUNTIMES)
    parser.add_argument("--counters", type=Path, required=True, help="memory-mapped counter file to write")
    parser.add_argument("--threads", type=int, default=1, help="threads for one inference (default 1)")
    parser.add_argument("--target", default="", help="prefer a bundle's artefact for this target, such as rpi4")
    parser.add_argument("--delegate", default="", help="execution provider of onnxruntime, or the Edge TPU's library")
    parser.add_argument("--cache", type=int, default=0, help="keep so many answers for inputs that come again")
    parser.add_argument(
        "--invoke-timeout", type=float, help="seconds for one inference; 0: any (default: 5 for edgetpu, else 0)"
    )
    parser.add_argument("--stuck-timeout", type=float, default=STUCK_S, help=argparse.SUPPRESS)
    parser.add_argument("--debug", action="store_true", help="show a traceback")
    return parser


if __name__ == "__main__":
    sys.exit(main())
