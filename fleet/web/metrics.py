# SPDX-License-Identifier: Apache-2.0
"""``/metrics`` in Prometheus' text form, version 0.0.4."""

from collections import Counter
from collections.abc import Iterable

from fleet.adapters import tables
from fleet.adapters.operations import Operations
from fleet.core.inventory import is_online, sync_of
from fleet.web import views

__all__ = ["metrics_text"]

Sample = tuple[dict[str, str], float]


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> list[str]:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(word)}"' for key, word in labels.items())
        lines.append(f"{name}{{{inside}}} {value:g}" if inside else f"{name} {value:g}")
    return lines


def _escaped(word: str) -> str:
    r"""Return a label's value.

    Example:
        >>> print(_escaped('a"b'))
        a\"b
    """
    return word.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def metrics_text(operations: Operations) -> str:
    """Return all metrics."""
    now = operations.clock()
    records = operations.store.read(tables.devices)
    rollouts = operations.store.read(tables.rollouts)
    counts = operations.store.read(tables.counts)
    shown = operations.store.read(lambda db: [views.device_json(db, record, now) for record in records])
    of = [({"device": record.device}, record) for record in records]
    levels = [({"device": d["device"], "level": d["drift"]["level"]}, 1.0) for d in shown]
    estimated = [({"device": d["device"]}, d["drift"]["estimated_accuracy"]) for d in shown]
    truth = [({"device": d["device"]}, d["true_accuracy"]["value"]) for d in shown if d["true_accuracy"]]
    states = Counter(rollout.state.value for rollout in rollouts)
    families = [
        _family("strop_devices", "gauge", "Enrolled devices.", [({}, len(records))]),
        _family("strop_device_online", "gauge", "1 if online.", [(n, is_online(r, now)) for n, r in of]),
        _family("strop_device_in_sync", "gauge", "1 if it runs what is wanted.", [(n, sync_of(r).ok) for n, r in of]),
        _family(
            "strop_device_inferences",
            "gauge",
            "Since the runner's start.",
            [({"device": d["device"]}, float(d["inferences"])) for d in shown],
        ),
        _family("strop_drift_level", "gauge", "1 for the present level.", levels),
        _family(
            "strop_estimated_accuracy",
            "gauge",
            "Without labels, 0 to 1.",
            [(labels, value) for labels, value in estimated if value is not None],
        ),
        _family("strop_true_accuracy", "gauge", "From delayed labels, 0 to 1.", truth),
        _family(
            "strop_rollouts", "gauge", "Rollouts by state.", [({"state": s}, n) for s, n in sorted(states.items())]
        ),
        *(
            _family(f"strop_ingest_{name}_total", "counter", f"{name} taken.", [({}, value)])
            for name, value in sorted(counts.items())
        ),
    ]
    return "\n".join(line for family in families for line in family) + "\n"
