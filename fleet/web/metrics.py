# SPDX-License-Identifier: Apache-2.0
"""``/metrics`` in Prometheus' text form, version 0.0.4."""

from collections.abc import Iterable
from typing import Final

from edge_contract.findings import Level
from fleet.adapters import tables
from fleet.adapters.database import Connection
from fleet.adapters.operations import Operations
from fleet.adapters.roster import Roster
from fleet.web import views

__all__ = ["metrics_text"]

Sample = tuple[dict[str, str], float]

_LABELLED: Final = 500
"""Most devices whose true accuracy is told."""

_WINDOWS: Final = 4
_HAS_LABELS: Final = (
    "SELECT device FROM devices WHERE EXISTS (SELECT 1 FROM labels WHERE labels.device = devices.device) "
    "ORDER BY device LIMIT ?"
)


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


def _labelled(db: Connection) -> list[str]:
    rows = db.execute(_HAS_LABELS, (_LABELLED,))
    return [row["device"] for row in rows.fetchall()]


def _truth(operations: Operations) -> list[Sample]:
    """Return the true accuracy of the devices whose results were labelled."""

    def read(db: Connection) -> list[Sample]:
        found = [(name, views.drift_of(db, name, _WINDOWS)[1]) for name in _labelled(db)]
        return [({"device": name}, truth.value) for name, truth in found if truth]

    return operations.store.read(read)


def metrics_text(operations: Operations, roster: Roster, *, of_devices: bool = True) -> str:
    """Return all metrics; what is told of each device comes from the roster, so that ten thousand cost no second.

    Args:
        operations: The server's verbs.
        roster: The devices' lines.
        of_devices: Tell series of each device; without them the sums of the fleet and its models stay.
    """
    now, lines = operations.clock(), roster.lines()
    states = operations.store.read(rollout_states)
    truth = _truth(operations) if of_devices else []
    counts = operations.store.read(tables.counts)
    of = [({"device": line.device}, line) for line in lines] if of_devices else []
    families = [
        _family("strop_devices", "gauge", "Enrolled devices.", [({}, len(lines))]),
        _family("strop_device_online", "gauge", "1 if online.", [(n, line.is_online(now)) for n, line in of]),
        _family("strop_device_in_sync", "gauge", "1 if it runs what is wanted.", [(n, one.in_sync) for n, one in of]),
        _family(
            "strop_device_inferences", "gauge", "Since the runner's start.", [(n, one.inferences) for n, one in of]
        ),
        _family(
            "strop_drift_level",
            "gauge",
            "1 for the present level.",
            [({**n, "level": one.level or Level.INSUFFICIENT.value}, 1.0) for n, one in of],
        ),
        _family(
            "strop_estimated_accuracy",
            "gauge",
            "Without labels, 0 to 1.",
            [(n, one.estimated) for n, one in of if one.estimated is not None],
        ),
        _family("strop_true_accuracy", "gauge", "From delayed labels, 0 to 1.", truth),
        *_drift(operations),
        _family("strop_rollouts", "gauge", "Rollouts by state.", [({"state": s}, n) for s, n in states.items()]),
        *(
            _family(f"strop_ingest_{name}_total", "counter", f"{name} taken.", [({}, value)])
            for name, value in sorted(counts.items())
        ),
    ]
    return "\n".join(line for family in families for line in family) + "\n"


def _drift(operations: Operations) -> list[list[str]]:
    """Return the sums over models: few series, however many devices there are."""
    counts = operations.drift.counts()
    cohorts = [({"model": one.model, "version": one.version}, one) for one in operations.drift.cohorts()]
    return [
        _family(
            "strop_drift_devices",
            "gauge",
            "Devices by their drift level.",
            [({"model": m, "version": v, "level": level}, n) for (m, v, level), n in sorted(counts.items())],
        ),
        _family(
            "strop_cohort_moved",
            "gauge",
            "1 if a version's devices are unlike the reference as a whole.",
            [(name, one.kind in ("moved", "both")) for name, one in cohorts],
        ),
        _family("strop_cohort_outliers", "gauge", "Devices unlike the others.", [(n, len(o.odd)) for n, o in cohorts]),
        _family(
            "strop_cohort_effect",
            "gauge",
            "Squared distance of a channel from the reference, beyond chance.",
            [({**n, "channel": c.name}, c.effect) for n, o in cohorts for c in o.channels if c.p is not None],
        ),
        _family(
            "strop_cohort_estimated_accuracy",
            "gauge",
            "Of a version's devices, without labels; only where it is valid.",
            [(n, o.estimated) for n, o in cohorts if o.estimated is not None and o.valid],
        ),
    ]


def rollout_states(db: Connection) -> dict[str, int]:
    """Return state → how many rollouts are in it."""
    rows = db.execute("SELECT state, COUNT(*) AS n FROM rollouts GROUP BY state ORDER BY state")
    return {row["state"]: row["n"] for row in rows.fetchall()}
