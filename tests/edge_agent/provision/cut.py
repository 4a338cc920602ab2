# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.edge_agent.provision.cut HOW WORD… -- WORDS``: a first boot that is killed at one point.

``step NAME``: after the step was carried out, before that is written down. ``operation ROOT NUMBER``: at a durable
operation below a folder, by the library that the crash tests put in front of libc; prints how many there were.
"""

import os
import signal
import sys
from pathlib import Path

from edge_agent.provision.__main__ import main
from edge_agent.provision.journal import Journal
from tests.edge_agent.crash import shim


def at_step(step: str) -> None:
    done = Journal.done

    def dying(self: Journal, name: str, said: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)
        done(self, name, said)

    Journal.done = dying  # type: ignore[method-assign]


def run(words: list[str]) -> int:
    cut = words.index("--")
    how, rest = words[:cut], words[cut + 1 :]
    if how[0] == "step":
        at_step(how[1])
        return main(rest)
    behind = shim.Shim()
    number = int(how[2])
    behind.arm(Path(how[1]), shim.KILL_BEFORE if number else shim.COUNT, number, number)
    code = main(rest)
    print(f"operations {behind.count}")
    return code


if __name__ == "__main__":
    raise SystemExit(run(sys.argv[1:]))
