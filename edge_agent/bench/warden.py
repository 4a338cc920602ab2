# SPDX-License-Identifier: Apache-2.0
"""``python -m edge_agent.bench.warden SECONDS BYTES PROGRAM WORD…``: a program that cannot outlive its limits.

The agent starts this as the leader of a process group of its own and holds its stdin. It starts the program in the same
group and waits for one of three: the program ends, the time is over, or stdin closes because the agent is gone, however
it went. Then the whole group is killed, this process included. No file grows beyond BYTES, and when memory is short
the kernel ends the group before the agent.
"""

import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["EXIT_LATE", "main"]

EXIT_LATE: Final = 124
LOOK_S: Final = 0.2
_OOM_SCORE: Final = "800"
_STDIN: Final = 0


def _ended(child: "subprocess.Popen[bytes]", until: float) -> int | None:
    """Return the program's exit code; None when the time is over or the agent is gone."""
    poll = select.poll()
    poll.register(_STDIN, select.POLLIN | select.POLLHUP)
    while (code := child.poll()) is None:
        if time.monotonic() >= until:
            return None
        if poll.poll(LOOK_S * 1000) and not os.read(_STDIN, 4096):
            return None
    return code


def main(words: Sequence[str]) -> int:
    """Run a program within its limits; its exit code is ours. What is too late is killed together with us."""
    seconds, size, command = float(words[0]), int(words[1]), list(words[2:])
    until = time.monotonic() + seconds
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"error: cannot start {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    code = _ended(child, until)
    if code is None:
        os.killpg(os.getpgrp(), signal.SIGKILL)
    return EXIT_LATE if code is None else code if code >= 0 else 128 - code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
