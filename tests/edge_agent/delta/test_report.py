# SPDX-License-Identifier: Apache-2.0
"""What a download cost is in the order's report, in the journal and in an event; and the codec stays in its helper."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from edge_agent.core import effects as ef
from edge_agent.core import events as ev
from edge_contract import canonical
from tests.support.device_sim import Device, job

FILES = [
    {"path": "model.tflite", "size": 900, "fetched": 40, "codec": "tensors"},
    {
        "path": "golden.json",
        "size": 100,
        "fetched": 130,
        "codec": "zstd-prefix",
        "reason": "malformed",
        "blame": "patch",
    },
]
FACTS = {"fetched": 170, "full": 1000, "codecs": ["full", "tensors"], "delta_failed": True, "files": FILES}


class Patched(Device):
    """A device whose downloads tell how they came."""

    def _on_RunStep(self, effect: ef.RunStep) -> None:
        super()._on_RunStep(effect)
        if effect.step == "download" and isinstance(self.later[-1], ev.StepDone):
            self.later[-1] = replace(self.later[-1], fetched=FACTS)


def test_bytes_codecs_and_a_failed_patch_are_reported_and_journalled() -> None:
    device = Patched()
    device.run(3)
    device.order(job())
    device.run(20)
    assert device.status() == "SUCCEEDED"
    details = device.server.statuses["j1"].details
    told = {key: details[key] for key in ("fetched", "full", "codecs", "delta_failed")}
    assert told == {"fetched": 170, "full": 1000, "codecs": ["full", "tensors"], "delta_failed": True}
    assert details["inferences"] >= 100, "the probation's figures stand beside them"
    assert b'"delta_failed":true' in device.disk.journal
    bodies = [canonical.loads(body) for queue in device.disk.rows.values() for _, body in queue.values()]
    bodies += [row for rows in device.server.rows.values() for row in rows.values()]
    (event,) = [body for body in bodies if body.get("kind") == "fetched"]
    assert event["files"] == FILES


def test_the_control_process_loads_neither_zstandard_nor_numpy_for_patches() -> None:
    code = "import edge_agent.adapters.patches, edge_agent.app, sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    loaded = set(json.loads(done.stdout))
    assert "edge_agent.delta.attempt" in loaded
    assert not {name.split(".")[0] for name in loaded} & {"zstandard", "numpy"}
    assert "edge_agent.delta.apply" not in loaded
