# SPDX-License-Identifier: Apache-2.0
"""What the story sees: readings of the server's API and of a device's own counters, and small tables of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from edge_agent.counters import CounterFile
from edge_contract.states import Phase
from examples.digits.stage import Device, Stage

__all__ = ["Results"]

Facts = dict[str, Any]
LIVE = ("DRAFT", "SCHEDULED", "RUNNING", "PAUSED")
MODEL = "digits"


def device(stage: Stage, name: str) -> Facts:
    """Return a device as the API shows it."""
    found: Facts = stage.call("GET", f"devices/{name}")
    return found


def is_online(stage: Stage, name: str) -> bool:
    """Return whether the server believes that a device is there."""
    return bool(device(stage, name)["online"])


def running(stage: Stage, name: str) -> str:
    """Return the bundle that a device's runner really holds, by its heartbeat."""
    state = device(stage, name)["models"].get(MODEL)
    return str(state["running"]) if state else ""


def ended(stage: Stage, rollout: str) -> Facts | None:
    """Return a rollout once it has ended."""
    found: Facts = stage.call("GET", f"rollouts/{rollout}")
    return None if found["state"] in LIVE else found


def rollout_facts(rollout: Facts) -> Facts:
    """Return what the story keeps of a rollout; devices that got no order are left out."""
    ordered = [e for e in rollout["executions"] if e["status"] != "QUEUED"]
    told = [e["reason"] for e in ordered if e["reason"] and e["reason"] not in rollout["reason"]]
    return {
        "state": rollout["state"],
        "waves": [wave["state"] for wave in rollout["waves"]],
        "first_wave": rollout["waves"][0]["devices"],
        "statuses": {e["device"]: e["status"] for e in ordered},
        "phases": {e["device"]: e["phase"] for e in ordered},
        "reason": "; ".join([rollout["reason"], *told]),
    }


def tried(stage: Stage, bundle: str) -> list[str]:
    """Return the devices that were ever ordered to install a bundle."""
    orders = [stage.call("GET", f"rollouts/{r['id']}") for r in stage.call("GET", "rollouts") if r["bundle"] == bundle]
    waiting = (Phase.QUEUED.value, "")
    return sorted({e["device"] for r in orders for e in r["executions"] if e["phase"] not in waiting})


def local_inferences(of: Device) -> int:
    """Return how many inferences the device's own counters hold; asks the device's disk, not the server."""
    reading = CounterFile(of.folder / "counters.bin").read()
    return 0 if reading is None else reading.counters.n_infer


@dataclass(frozen=True)
class Results:
    """Results of one device at the server: the inference numbers that arrived.

    Attributes:
        last: Highest inference number of the newest runner.
        missing: Numbers below ``last`` that never arrived.
        twice: Numbers that arrived more than once.
    """

    last: int
    missing: int
    twice: int


def results(stage: Stage, name: str) -> Results:
    """Return which inference numbers of a device have arrived, counted over all its rows."""
    numbers: list[int] = []
    for row in _rows(stage, name):
        first = row["body"]["first"]
        numbers.extend(range(first, first + len(row["body"]["rows"])))
    if not numbers:
        return Results(0, 0, 0)
    unique = set(numbers)
    return Results(max(unique), max(unique) - min(unique) + 1 - len(unique), len(numbers) - len(unique))


def _rows(stage: Stage, name: str) -> list[Facts]:
    rows: list[Facts] = []
    after = 0
    while True:
        page = stage.call("GET", f"devices/{name}/telemetry?class=result&after={after}&limit=5000")
        rows.extend(page["rows"])
        if not page["rows"]:
            return rows
        after = page["after"]


def upload_labels(stage: Stage) -> None:
    """Send the truth about every image, as an operator would whose labels come late."""
    folder = stage.work / "streams"
    for name in stage.devices:
        labels = {
            f"{source}:{i}": int(label)
            for source in ("mnist", "other")
            for i, label in enumerate(np.load(folder / f"{source}-labels.npy"))
        }
        stage.call("POST", "labels", {"device": name, "labels": labels})


def drift(stage: Stage, name: str) -> Facts:
    """Return a device's drift: the newest verdict, its history, and the true accuracy beside it."""
    found: Facts = stage.call("GET", f"devices/{name}/drift")
    history = [window for window in found["history"] if window.get("estimated_accuracy") is not None]
    alarms = sum(window["level"] == "ALARM" for window in found["history"])
    return {**found, "history": history, "alarms": alarms}


def parity_table(parity: Facts) -> Table:
    """Return how far each pair of runtimes agrees, integer by integer."""
    table = Table("version", "runtimes", "differing integers", "largest step", "same class")
    for version, report in parity.items():
        for pair in report["pairs"]:
            share = f"{100 * pair['same_class']:.2f} %"
            differing = f"{pair['differing']} of {pair['values']}"
            table.add_row(version, f"{pair['first']} / {pair['second']}", differing, str(pair["max_steps"]), share)
    return table


def rollout_line(rollout: Facts) -> str:
    """Return a rollout in one line."""
    seen = rollout_facts(rollout)
    devices = ", ".join(f"{name} {status} ({seen['phases'][name]})" for name, status in seen["statuses"].items())
    said = [f"  {seen['state']}: waves {' → '.join(seen['waves'])}", devices, seen["reason"]]
    return "; ".join(part for part in said if part)


def drift_table(found: Facts) -> Table:
    """Return what the drift page says of each device."""
    table = Table("device", "level", "windows", "estimated accuracy", "true accuracy", "what moved")
    for name, view in found.items():
        low, mid, high = (100 * view[key] for key in ("low", "estimated_accuracy", "high"))
        estimate = f"{mid:.1f} % [{low:.1f}, {high:.1f}]" + ("" if view["valid"] else ", shift too strong to trust")
        true = "–" if view["true_accuracy"] is None else f"{100 * view['true_accuracy']:.1f} %"
        table.add_row(name, view["level"], str(view["windows"]), estimate, true, "; ".join(view["moved"][:2]) or "–")
    return table
