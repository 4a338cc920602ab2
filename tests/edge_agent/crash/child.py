# SPDX-License-Identifier: Apache-2.0
"""The process behind the shim: it runs the rig over a folder, killed or failed where it is told.

``python -m tests.edge_agent.crash.child`` reads one JSON request a line. For each it forks, so that a start costs a
millisecond and not an interpreter, and answers how the fork ended and what it had told the world until then.
"""

import functools
import gc
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from edge_contract.manifest import MANIFEST_NAME, Manifest
from tests.edge_agent.crash.outside import World
from tests.edge_agent.crash.rig import Rig
from tests.edge_agent.crash.shim import Shim


@functools.cache
def manifests_of(folder: Path) -> dict[str, Manifest]:
    """Return version → manifest of the bundles in a folder."""
    return {p.name: Manifest.from_bytes((p / MANIFEST_NAME).read_bytes()) for p in sorted(folder.iterdir())}


def live(request: dict[str, Any], pipe: int) -> None:
    """One life of the device's process: the whole story, unless something ends it."""
    shim, data = Shim(), Path(request["data"])

    def said(text: str) -> None:
        os.write(pipe, text.encode() + b"\n")
        shim.mark(text)

    orders, bundles = tuple(request["orders"]), manifests_of(Path(request["bundles"]))
    world = World(request["url"], bundles, orders, said, acks=request["acks"])
    if request.get("log"):
        shim.log(Path(request["log"]))
    shim.arm(data, request["how"], request["first"], request["last"], request["error"])
    try:
        rig = Rig(data, world, request["boot"])
        rig.run()
        rig.close()
    except Exception:
        said(json.dumps({"error": traceback.format_exc(limit=-4)}))
        raise
    said(json.dumps({"count": shim.count, "trouble": len(rig.trouble), "alarms": world.alarms}))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Fork one life and wait for its end."""
    manifests_of(Path(request["bundles"]))  # once, for all forks
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        code = 1
        try:
            live(request, writer)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        lines = stream.read().splitlines()
    _, status = os.waitpid(pid, 0)
    return {"code": os.waitstatus_to_exitcode(status), "said": [json.loads(line) for line in lines]}


def main() -> None:
    """Serve until the other side is gone."""
    gc.disable()  # a fork lives for a moment, and need not copy every page to look for garbage in it
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
