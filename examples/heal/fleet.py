# SPDX-License-Identifier: Apache-2.0
"""``python -m examples.heal.fleet``: the story with a fleet: a real server, real devices, and ``strop loop run``.

Three devices get the student of the first camera. On two of them the camera is changed; their drift alarms persist,
the server makes a signal, and ``strop loop run`` does the rest: it captures, lets the teacher label, heals, and rolls
out by shadow, canary and production. The labels that are uploaded here only measure; nothing learns from them.
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console

from edge_contract.errors import StropError
from examples.digits.stage import Stage
from examples.heal import data
from examples.heal.build import RECIPE

__all__ = ["main", "tell"]

MODEL: Final = "clothes"
CALM, STRAYS = "cam-1", ("cam-2", "cam-3")
RATE_HZ, WINDOW = 40, 200
RETRAIN: Final = "windows = 2\ndevices = 2\nshare = 0.0\n"
RULES: Final = """
[[rule]]
channel = "production"
parity = true
accuracy_drop_at_most = 0.01
other_data = true               # the healed one was trained on captured inputs, too
canary_healthy_hours = 0.001    # a story does not wait for a day
canary_devices = 1
"""
LOOP: Final = """
data = "server"
keys = "keys"
runs = "runs"

[limits]
minimum_inputs = 500
wanted_inputs = {wanted}
capture_s = 900
poll_s = 1
verify_s = 120

[capture]
random = 0.5
per_device = 2000
collect_s = 10

[rollout]
soak_s = 2
timeout_s = 240

[rollout.trial]
inferences = 100

[rollout.probation]
inferences = 80
max_latency_ratio = 20.0

[model.clothes]
recipe = "shipped"
"""

Facts = dict[str, Any]


def tell(work: Path, console: Console, *, wanted: int = 1500) -> Facts:
    """Tell the story once in an empty or new folder and return its facts.

    Args:
        work: Folder for everything.
        console: Told what happens.
        wanted: Captured inputs.

    Raises:
        StropError: A step did not do what it claims.
    """
    facts: Facts = {"began": time.time()}
    with Stage(work, console) as stage:
        _ship(stage, facts)
        _drift(stage, facts)
        (work / "loop.toml").write_text(LOOP.format(wanted=wanted))
        started = time.monotonic()
        run = json.loads(stage.strop("loop", "run", "--config", work / "loop.toml", "--json"))
        facts["loop_s"] = round(time.monotonic() - started, 1)
        facts["run"] = {key: run[key] for key in ("run", "state", "reason", "lineage")}
        facts["train"] = next(one["facts"] for one in run["steps"] if one["name"] == "train")
        facts["after"] = _accuracies(stage, run["lineage"]["bundle"])
        _report(facts, console)
    (work / "summary.json").write_text(json.dumps(facts, indent=2) + "\n")
    return facts


def _ship(stage: Stage, facts: Facts) -> None:
    """Train the student of the first camera, bundle it, and let three devices run it."""
    work, keys = stage.work, stage.work / "keys"
    if not (work / "shipped" / "report.json").is_file():
        stage.strop("compress", "run", RECIPE, "--out", work / "shipped")
    stage.server_data.mkdir(parents=True, exist_ok=True)
    (stage.server_data / "rules.toml").write_text(RULES)
    (stage.server_data / "retrain.toml").write_text(RETRAIN)
    facts["page"] = stage.serve()
    stage.strop("export", "keys", "init", keys, "--online", stage.server_data / "tuf" / "online.pub")
    stage.strop("fleet", "trust", keys / "root.json", "--data", stage.server_data)
    out = work / "bundles" / "1.0.0"
    words = ["--version", "1.0.0", "--keys", keys, "--out", out, "--json"]
    facts["parent"] = json.loads(stage.strop("export", "bundle", work / "shipped", *words))["bundle"]
    stage.strop("fleet", "model", "add", out, "--targets", keys / "targets.json", "--data", stage.server_data)
    streams = _streams(work / "streams")
    for seed, name in enumerate((CALM, *STRAYS)):
        settings = _settings(streams, seed, allows=name in STRAYS)
        stage.start(stage.enrol(name, "onnxruntime", Path(sys.executable), settings, model=MODEL))
    for name in stage.devices:
        stage.wait(f"{name} is online", partial(_is_online, stage, name), seconds=180)
    waves = [{"rest": True}]
    order = {"model": MODEL, "bundle": facts["parent"], "waves": waves, "soak_s": 0.0, "timeout_s": 240.0}
    rollout = stage.call("POST", "rollouts", {**order, "channel": "production"})["id"]
    stage.wait("every device runs 1.0.0", partial(_is_complete, stage, rollout), seconds=300)


def _streams(folder: Path) -> dict[str, Path]:
    """Write the test photographs of both cameras for the devices to replay."""
    folder.mkdir(exist_ok=True)
    for name, split in (("first", data.load().test), ("second", data.second_test())):
        np.save(folder / f"{name}.npy", split.x)
        np.save(folder / f"{name}-labels.npy", split.y)
    return {name: folder / f"{name}.npy" for name in ("first", "second")}


def _settings(streams: dict[str, Path], seed: int, *, allows: bool) -> str:
    sources = [
        f'[sources.{name}]\nkind = "replay"\npath = "{path}"\nrate_hz = {RATE_HZ}\nloop = true\nshuffle_seed = {seed}\n'
        for name, path in streams.items()
    ]
    settings = f'[settings]\nsource = "first"\nwindow_inferences = {WINDOW}\nheartbeat_s = 2\n'
    return "\n".join([settings, *sources, "[capture]\nallowed = true\n" if allows else ""])


def _is_online(stage: Stage, name: str) -> bool:
    return bool(stage.call("GET", f"devices/{name}")["online"])


def _is_complete(stage: Stage, rollout: str) -> bool:
    found = stage.call("GET", f"rollouts/{rollout}")
    if found["state"] in ("ABORTED", "ROLLED_BACK", "PAUSED"):
        raise StropError(f"{found['state']}: {found['reason']}", where=f"rollout {rollout}")
    return bool(found["state"] == "COMPLETED")


def _drift(stage: Stage, facts: Facts) -> None:
    """Change the camera of two devices and wait for the server's signal."""
    for name in stage.devices:
        for source in ("first", "second"):
            truth = np.load(stage.work / "streams" / f"{source}-labels.npy")
            labels = {f"{source}:{i}": int(label) for i, label in enumerate(truth)}
            stage.call("POST", "labels", {"device": name, "labels": labels})
        stage.wait(f"{name} has 2 windows", partial(_has_windows, stage, name, 2), seconds=180)
    for name in STRAYS:
        stage.call("PUT", f"devices/{name}/config", {"source": "second"})
    stage.console.print(f"  the camera of {' and '.join(STRAYS)} is changed")
    started = time.monotonic()
    (found,) = stage.wait("the signal", lambda: stage.call("GET", "drift/signals") or None, seconds=300)
    facts["signal_after_s"] = round(time.monotonic() - started, 1)
    stage.console.print(stage.strop("fleet", "drift", "signal", found["number"], "--data", stage.server_data))
    stage.wait("whole windows of the new camera", partial(_has_windows, stage, STRAYS[0], 8), seconds=180)
    facts["signal"], facts["before"] = found["signal"], _accuracies(stage, facts["parent"])


def _has_windows(stage: Stage, name: str, count: int) -> bool:
    return int(stage.call("GET", f"devices/{name}/drift")["windows"]) >= count


def _accuracies(stage: Stage, bundle: str) -> Facts:
    """Return each device's accuracy by the labels and by its own estimate, over results of a bundle."""
    found = {}
    for name in stage.devices:
        stage.wait(f"results of {bundle[:8]} on {name}", partial(_has_results, stage, name, bundle), seconds=120)
        shown = stage.call("GET", f"devices/{name}/drift")
        keys = ("level", "true_accuracy", "estimated_accuracy", "low", "high", "valid")
        found[name] = {key: shown[key] for key in keys}
    return found


def _has_results(stage: Stage, name: str, bundle: str) -> bool:
    shown = stage.call("GET", f"devices/{name}")
    is_there = any(one["running"] == bundle for one in shown["models"].values())
    return is_there and shown["drift"]["windows"] > 1 and shown["true_accuracy"] is not None


def _report(facts: Facts, console: Console) -> None:
    for name, before in facts["before"].items():
        was, now = (100 * (one["true_accuracy"] or 0.0) for one in (before, facts["after"][name]))
        console.print(f"  {name}: {was:.1f} % → {now:.1f} % by the labels", highlight=False)
    console.print(f"  the loop took {facts['loop_s']:.0f} s: {facts['run']['reason']}", highlight=False)


def main() -> int:
    """Tell the story from the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.heal.fleet", description="Heal a fleet without labels.")
    parser.add_argument("--work", type=Path, default=Path("heal-fleet"), help="new folder for everything that is made")
    parser.add_argument("--wanted", type=int, default=1500, help="captured inputs")
    words = parser.parse_args()
    try:
        tell(words.work.resolve(), Console(), wanted=words.wanted)
    except StropError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
