# SPDX-License-Identifier: Apache-2.0
"""The drift pages for real sources that differ, and for halves of one source, as pictures for a person to look at.

::

    python -m benchmarks.fleet.drift_pairs /tmp/pages
    python -m benchmarks.fleet.drift_pairs /tmp/pages --only wrist

Server and broker are real, and so are the summaries (``pair_windows``): six devices send six healthy hours and five
more, in which all of them (version 1.0.0) or one of them (version 1.1.0) see the other source. Chromium then takes
/drift, each cohort's page and one device's page; what the API says of each cohort stands beside the pictures as JSON.
"""

import argparse
import base64
import json
import queue
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.fleet.header import header
from benchmarks.fleet.pair_windows import DEVICES, SCENES, Scene, counted, hours_of, rows_of, session_clock
from benchmarks.fleet.stage import Stage
from edge_contract.batches import TelemetryAck, TelemetryBatch, TelemetryRow, encode_batch
from edge_contract.counts import Counters
from edge_contract.errors import MissingDependencyError, StropError
from edge_contract.messages import Birth, ModelState, ReportedState
from edge_contract.summary import DriftSummary, short_hash
from edge_contract.topics import topic

__all__ = ["Teller", "device_name", "lines", "main", "shots", "summary_at", "taken"]

_PATIENCE_S: Final = 60.0
_HOUR_S: Final = 3600
_FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
_TENANT: Final = "default"

Documents = dict[str, dict[str, Any]]


def device_name(scene: Scene, version: str, device: int) -> str:
    """Return a device's name.

    Example:
        >>> device_name(SCENES[0], "1.1.0", 0)
        'wrist-one-1'
    """
    return f"{scene.name}-{'one' if scene.versions[version] == 1 else 'all'}-{device + 1}"


def summary_at(name: str, bundle: str, profile_crc: int, counters: Counters, end_s: float) -> bytes:
    """Return the window of an hour that ended at ``end_s`` seconds since 1970, as the device sends it."""
    return DriftSummary(
        device=short_hash(name, 8),
        bundle=bundle[:32],
        profile_crc=profile_crc,
        boot=short_hash("boot", 4),
        window=int(end_s) // _HOUR_S,
        start_ms=int(1000 * (end_s - _HOUR_S)),
        duration_ms=1000 * _HOUR_S,
        counters=counters,
    ).encode()


class Teller:
    """One device on the broker's plain listener: says who it is and what it runs, and then window by window.

    Args:
        port: Of the listener.
        name: Of the device.
        slot: The model that it runs, and its name.
    """

    def __init__(self, port: int, name: str, slot: tuple[str, ModelState]) -> None:
        self.name, self._seq, self._acks = name, 0, queue.Queue[TelemetryAck]()
        ready: queue.Queue[bool] = queue.Queue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv311)
        self._client.username_pw_set(name)
        self._client.on_connect = lambda c, *_: c.subscribe(topic(_TENANT, name, "tm/ack"), qos=1)
        self._client.on_subscribe = lambda *_: ready.put(True)
        self._client.on_message = lambda _c, _d, said: self._acks.put(TelemetryAck.from_bytes(bytes(said.payload)))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        ready.get(timeout=_PATIENCE_S)
        now, outbox = time.time(), {"rows": 0, "bytes": 0, "dropped": {}}
        birth = Birth(name, "boot1", 1, "0.1.0", "onnxruntime", "", {"machine": "x86_64"}, now)
        models = {slot[0]: slot[1]}
        state = ReportedState(name, "boot1", 0, models, {}, outbox, {"errors": 0}, now)
        self._say("state/birth", birth.to_bytes(), retain=True)
        self._say("twin/reported", state.to_bytes(), retain=True)

    def _say(self, channel: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic(_TENANT, self.name, channel), payload, qos=1, retain=retain)

    def tell(self, bundle: str, summary: bytes, at_s: float) -> None:
        """Send one window and wait until the server has it.

        Raises:
            StropError: It did not say so within a minute.
        """
        self._seq += 1
        body = {"bundle": bundle, "summary": base64.b64encode(summary).decode()}
        row = TelemetryRow(self._seq, at_s, body)
        batch = TelemetryBatch(self.name, "boot1", "drift", self._seq - 1, (row,))
        self._say("tm/drift", encode_batch(batch))
        try:
            self._acks.get(timeout=_PATIENCE_S)
        except queue.Empty as error:
            raise StropError("no acknowledgement of a window", where=self.name) from error

    def close(self) -> None:
        """Hang up."""
        self._client.disconnect()
        self._client.loop_stop()


def _send(stage: Stage, scene: Scene, now: float) -> dict[str, str]:
    """Register the scene's bundles, let its devices tell their hours, and return version → bundle.

    All cohorts tell hour by hour: the windows of a fleet come in the order of time, and very late ones are left out.
    """
    (profile, healthy, other), clock = scene.make(), session_clock(scene)
    random, plan = np.random.default_rng(9), list[tuple[int, str, int, bool]]()
    bundles, tellers = dict[str, str](), dict[tuple[str, int], Teller]()
    for version, shifted in scene.versions.items():
        bundle = bundles[version] = stage.register(version, model=scene.model, profile=profile)
        slot = scene.model, ModelState(bundle, bundle, "", "", version)
        for i in range(DEVICES):
            tellers[version, i] = Teller(stage.plain_port, device_name(scene, version, i), slot)
        plan += [(hour, version, device, is_shifted) for hour, device, is_shifted in hours_of(shifted)]
    plan.sort(key=lambda one: one[0])
    for hour, version, device, is_shifted in plan:
        source = other if is_shifted and other is not None else healthy
        rows = rows_of(source, device, hour, random, in_order=scene.in_order)
        end_s = now - _HOUR_S * (plan[-1][0] - hour)
        teller, bundle = tellers[version, device], bundles[version]
        counters = counted(profile, source, rows, clock)
        teller.tell(bundle, summary_at(teller.name, bundle, profile.crc, counters, end_s), end_s)
    for bundle in bundles.values():
        _wait_for(stage, bundle, len(plan) // len(bundles))
    for teller in tellers.values():
        teller.close()
    return bundles


def _wait_for(stage: Stage, bundle: str, windows: int) -> None:
    """Wait until the server has added up a cohort's windows and judged it."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        known = {one["bundle"] for one in stage.client.call("GET", "/drift/cohorts")["cohorts"]}
        if bundle in known:
            hours = stage.client.call("GET", f"/drift/cohorts/{bundle}")["hours"]
            if sum(one["windows"] for one in hours) >= windows:
                return
        time.sleep(0.5)
    raise StropError("the server did not add up the windows", where=f"bundle {bundle[:8]}")


def shots(scene: Scene, bundles: dict[str, str]) -> dict[str, str]:
    """Return picture → page.

    Example:
        >>> sorted(shots(SCENES[0], {"1.0.0": "ab" * 32}))
        ['wrist-all-cohort', 'wrist-all-device', 'wrist-drift']
    """
    found = {f"{scene.name}-drift": "/drift"}
    for version, bundle in bundles.items():
        name = device_name(scene, version, 0)
        found[f"{name[:-2]}-cohort"] = f"/drift/cohort?bundle={bundle[:16]}"
        found[f"{name[:-2]}-device"] = f"/devices/{name}"
    return found


def _photograph(address: str, pages: dict[str, str], out: Path) -> None:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise MissingDependencyError("Chromium takes the pictures", fix="apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        for name, path in pages.items():
            page.goto(f"{address}{path}")
            page.screenshot(path=str(out / f"{name}.png"), full_page=True)
        browser.close()


def taken(scene: Scene, out: Path) -> Documents:
    """Let a scene happen, take its pictures, and return version → cohort as the API shows it."""
    with tempfile.TemporaryDirectory(prefix="strop-pairs-") as folder:
        stage = Stage(Path(folder))
        stage.take_in([device_name(scene, version, i) for version in scene.versions for i in range(DEVICES)])
        stage.start()
        try:
            bundles = _send(stage, scene, time.time())
            found: Documents = {
                version: stage.client.call("GET", f"/drift/cohorts/{bundle}") for version, bundle in bundles.items()
            }
            _photograph(stage.endpoints["http"], shots(scene, bundles), out)
        finally:
            stage.stop()
    (out / f"{scene.name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return found


def lines(name: str, found: Documents) -> list[str]:
    """Return what the pages of a scene say, for people."""
    out = []
    for version, one in found.items():
        estimate = "–" if one["estimated"] is None else f"{one['estimated']:.1%}"
        valid = "valid" if one["valid"] else "not valid"
        out.append(f"{name} {version}: {one['kind']}; {one['headline']}; estimated {estimate}, {valid}")
        out += [f"    {text}" for text in (*one["moved"], *([one["mix"]] if one["mix"] else []))]
        out += [f"    {odd['device']} {odd['level']}: {odd['words']}" for odd in one["odd"]]
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Take the pictures and print what the pages say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--only", choices=[one.name for one in SCENES], help="one scene")
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    print(*header("benchmarks.fleet.drift_pairs", arguments), sep="\n")
    try:
        for scene in SCENES:
            if asked.only in (None, scene.name):
                print(*lines(scene.name, taken(scene, asked.out)), sep="\n", flush=True)
    except StropError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
