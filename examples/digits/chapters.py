# SPDX-License-Identifier: Apache-2.0
"""The chapters of the story, in order. Each does one thing as its user would and notes what it saw in ``facts``."""

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from edge_contract.errors import StropError
from examples.digits import build, data, watch
from examples.digits.stage import Stage

__all__ = ["CHAPTERS", "claims"]

Facts = dict[str, Any]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CANARY, STEADY, STRAY = "pi-canary", "pi-steady", "pi-stray"
RATE_HZ, WINDOW = 40, 200
PROBATION = {"inferences": 80, "timeout_s": 120.0, "min_agreement": 0.7, "max_latency_ratio": 20.0}
WAVES = [{"devices": [CANARY]}, {"rest": True}]
OFFLINE_S = 8.0


def compress(stage: Stage, facts: Facts) -> None:
    """Train the teacher and the two students; print what each step cost."""
    folder = stage.work / "models"
    folder.mkdir()
    # Two processes at a time: each trains with one thread, as nets of this size gain nothing from a second one.
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for training in [pool.submit(train, folder) for train in (_teacher, _baseline)]:
            training.result()
    weights = ("--teacher-weights", folder / "teacher.pt")
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(stage.strop, "compress", "run", recipe, "--out", folder / version, *weights)
            for version, recipe in build.RECIPES.items()
        ]
        for run in runs:
            run.result()
    rows = build.table(folder)
    facts["models"] = [row.to_json() for row in rows]
    stage.console.print(build.render(rows))


def _teacher(folder: Path) -> None:
    build.train_teacher(folder, Console(stderr=True))


def _baseline(folder: Path) -> None:
    build.train_baseline(folder, Console(stderr=True, quiet=True))


def open_server(stage: Stage, facts: Facts) -> None:
    """Start the fleet server with its own broker and give it the workstation's root of trust."""
    facts["page"] = stage.serve()
    keys = stage.work / "keys"
    stage.strop("export", "keys", "init", keys, "--online", stage.server_data / "tuf" / "online.pub")
    stage.strop("fleet", "trust", keys / "root.json", "--data", stage.server_data)


def bundle(stage: Stage, facts: Facts) -> None:
    """Write ONNX and TFLite from one plan, run both in their runtimes, compare, sign, register."""
    build.mislabel(stage.work / "models" / "v2", stage.work / "models" / "v3")
    facts["bundles"], facts["parity"] = {}, {}
    for version, source in (("1.0.0", "v1"), ("2.0.0", "v2"), ("3.0.0", "v3")):
        _bundle(stage, facts, version, source)
    stage.console.print(watch.parity_table(facts["parity"]))


def _bundle(stage: Stage, facts: Facts, version: str, source: str) -> None:
    keys, out = stage.work / "keys", stage.work / "bundles" / version
    words = [stage.work / "models" / source, "--version", version, "--keys", keys, "--out", out, "--json"]
    made = json.loads(stage.strop("export", "bundle", *words))
    stage.strop("fleet", "model", "add", out, "--targets", keys / "targets.json", "--data", stage.server_data)
    facts["bundles"][version] = made["bundle"]
    facts["parity"][version] = made["parity"]


def enrol(stage: Stage, facts: Facts) -> None:
    """Enrol three devices, one for each runtime, and start their agents."""
    images = _write_streams(stage)
    legacy = ROOT / ".venv-tflite" / "bin" / "python"
    if not legacy.exists():
        raise StropError(f"{legacy} is missing", fix="run `make venv`")
    here = Path(sys.executable)
    cast = ((CANARY, "onnxruntime", here), (STEADY, "litert", here), (STRAY, "tflite-runtime", legacy))
    for name, runtime, python in cast:
        device = stage.enrol(name, runtime, python, _settings(images, seed=len(stage.devices)))
        stage.start(device)
    for name in stage.devices:
        stage.wait(f"{name} is online", partial(watch.is_online, stage, name), seconds=180)
    facts["devices"] = {name: device.runtime for name, device in stage.devices.items()}


def _write_streams(stage: Stage) -> dict[str, Path]:
    folder = stage.work / "streams"
    folder.mkdir(exist_ok=True)
    sources = {"mnist": data.load().test, "other": data.load_other()}
    for name, split in sources.items():
        np.save(folder / f"{name}.npy", split.x)
        np.save(folder / f"{name}-labels.npy", split.y)
    return {name: folder / f"{name}.npy" for name in sources}


def _settings(images: dict[str, Path], *, seed: int) -> str:
    tables = [
        f'[sources.{name}]\nkind = "replay"\npath = "{path}"\nrate_hz = {RATE_HZ}\nloop = true\nshuffle_seed = {seed}\n'
        for name, path in images.items()
    ]
    settings = f'[settings]\nsource = "mnist"\nwindow_inferences = {WINDOW}\nheartbeat_s = 2\n'
    return "\n".join([settings, *tables])


def first_rollout(stage: Stage, facts: Facts) -> None:
    """Roll out v1: the canary first, then the rest."""
    facts["rollout_v1"] = _roll_out(stage, facts, "1.0.0", "COMPLETED")


def second_rollout(stage: Stage, facts: Facts) -> None:
    """Roll out the better v2; every device now proves it against v1 on its own inputs."""
    facts["rollout_v2"] = _roll_out(stage, facts, "2.0.0", "COMPLETED")


def _roll_out(stage: Stage, facts: Facts, version: str, expected: str) -> Facts:
    bundle_id = facts["bundles"][version]
    order = {"model": "digits", "bundle": bundle_id, "waves": WAVES, "soak_s": 2.0, "timeout_s": 240.0}
    rollout = stage.call("POST", "rollouts", {**order, "probation": PROBATION})["id"]
    stage.console.print(f"  rollout {rollout}: {version}, {CANARY} first")
    final = stage.wait(f"rollout {version} ends", lambda: watch.ended(stage, rollout), seconds=400)
    stage.console.print(watch.rollout_line(final))
    if final["state"] != expected:
        raise StropError(f"rollout of {version} ended {final['state']}, not {expected}: {final.get('reason', '')}")
    return watch.rollout_facts(final)


def cut_network(stage: Stage, facts: Facts) -> None:
    """Cut one device off; it goes on inferring, and all it kept arrives afterwards, complete and once."""
    device = stage.devices[STEADY]
    device.cut()
    stage.console.print(f"  {device.name}: cable pulled")
    stage.wait("the server sees it go", lambda: not watch.is_online(stage, device.name), seconds=150)
    before, known = watch.local_inferences(device), watch.results(stage, device.name)
    time.sleep(OFFLINE_S)
    after = watch.local_inferences(device)
    device.mend()
    stage.console.print(f"  {device.name}: cable back after {after - before} inferences in the dark")
    expected = known.last + after - before
    stage.wait("its results arrive", lambda: watch.results(stage, device.name).last >= expected, seconds=150)
    seen = watch.results(stage, device.name)
    facts["offline"] = {
        "device": device.name,
        "inferences_in_the_dark": after - before,
        "arrived_before": known.last,
        "arrived_after": seen.last,
        "missing": seen.missing,
        "twice": seen.twice,
    }


def drift(stage: Stage, facts: Facts) -> None:
    """Switch one device to another source of digits; its page shows the alarm, and no other device's does."""
    watch.upload_labels(stage)
    _wait_for_windows(stage, list(stage.devices), 3)
    facts["drift_before"] = {name: watch.drift(stage, name) for name in stage.devices}
    stage.call("PUT", f"devices/{STRAY}/config", {"source": "other"})
    started = time.monotonic()
    stage.console.print(f"  {STRAY} now reads scikit-learn's digits")
    stage.wait("the alarm", lambda: watch.drift(stage, STRAY)["level"] == "ALARM", seconds=180)
    facts["alarm_after_s"] = round(time.monotonic() - started, 1)
    facts["drift"] = {name: watch.drift(stage, name) for name in stage.devices}
    stage.console.print(watch.drift_table(facts["drift"]))


def _has_windows(stage: Stage, name: str, count: int) -> bool:
    return int(watch.drift(stage, name)["windows"]) >= count


def _wait_for_windows(stage: Stage, names: list[str], count: int) -> None:
    for name in names:
        claim = f"{name} has {count} drift windows"
        stage.wait(claim, partial(_has_windows, stage, name, count), seconds=180)


def bad_update(stage: Stage, facts: Facts) -> None:
    """Roll out v3, whose classes are in another order: the canary refuses it and nothing else is touched."""
    before = {name: watch.running(stage, name) for name in stage.devices}
    facts["rollout_v3"] = _roll_out(stage, facts, "3.0.0", "ABORTED")
    back = facts["bundles"]["2.0.0"]
    stage.wait("the canary runs v2 again", lambda: watch.running(stage, CANARY) == back, seconds=90)
    facts["running_before_v3"] = before
    facts["running_after_v3"] = {name: watch.running(stage, name) for name in stage.devices}
    facts["devices_that_tried_v3"] = watch.tried(stage, facts["bundles"]["3.0.0"])


CHAPTERS = (
    ("Teacher to small int8 model", compress),
    ("A fleet server with its own broker", open_server),
    ("Two files from one plan, compared and signed", bundle),
    ("Three devices enrol", enrol),
    ("v1 by waves, canary first", first_rollout),
    ("v2, better", second_rollout),
    ("One device loses its network", cut_network),
    ("One device's inputs change", drift),
    ("A bad v3", bad_update),
)


def claims(facts: Facts) -> list[tuple[str, str]]:
    """Return each claim of the story with what was seen."""
    offline, stray = facts["offline"], facts["drift"][STRAY]
    others = ", ".join(f"{n} {d['level']}" for n, d in facts["drift"].items() if n != STRAY)
    by_role = {row["name"]: row for row in facts["models"]}
    seen = [(f"{name}", f"{row['size_kb']:.1f} KB, {100 * row['accuracy']:.1f} %") for name, row in by_role.items()]
    dark = f"{offline['inferences_in_the_dark']} inferences in the dark"
    estimate = (
        f"{100 * stray['estimated_accuracy']:.0f} % ({'valid' if stray['valid'] else 'shift too strong to trust'})"
    )
    both, v3 = f"{facts['rollout_v1']['state']}, {facts['rollout_v2']['state']}", facts["rollout_v3"]
    tried_by = ", ".join(facts["devices_that_tried_v3"])
    return [
        *seen,
        ("v1 and v2 reached every device", both),
        (f"{offline['device']} offline", f"{dark}, {offline['missing']} missing afterwards, {offline['twice']} twice"),
        (f"drift on {STRAY}", f"{stray['level']} after {facts['alarm_after_s']:.0f} s; {others}"),
        ("estimated accuracy there", f"{estimate}, true {100 * stray['true_accuracy']:.0f} %"),
        ("bad v3", f"{v3['state']}, {', '.join(v3['phases'].values())}; tried by {tried_by}"),
    ]
