# SPDX-License-Identifier: Apache-2.0
"""The front that a measured search found: which trial wins, and what it says in lines for people."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edge_contract.errors import MeasurementError

__all__ = ["FASTER", "chosen_trial", "lines"]

FASTER: Final = 1.3


def chosen_trial(trials: Sequence[Mapping[str, Any]], times: Mapping[str, Any]) -> int:
    """Return the number of the most accurate trial that is fast enough; if none is, of the fastest.

    Raises:
        MeasurementError: No trial was finished.

    Example:
        >>> trials = [{"number": n, "accuracy": {"accuracy": a}} for n, a in enumerate([0.93, 0.92, 0.91])]
        >>> chosen_trial(trials, {"0": {"ratio": 1.1}, "1": {"ratio": 1.4}, "2": {"ratio": 1.9}})
        1
    """
    if not trials:
        raise MeasurementError("no trial was finished", where="measured_search", fix="run it without --measure-only")
    fast = [trial for trial in trials if times[str(trial["number"])]["ratio"] >= FASTER]
    if not fast:
        return int(max(trials, key=lambda trial: float(times[str(trial["number"])]["ratio"]))["number"])
    return int(max(fast, key=lambda trial: float(trial["accuracy"]["accuracy"]))["number"])


def lines(found: Mapping[str, Any], times: Mapping[str, Any], test: Mapping[str, Any]) -> list[str]:
    """Return the front and the verdict as lines for people."""
    if not (found and times):
        return ["nothing measured yet"]
    whole = ", ".join(f"{name} {us:.1f}" for name, us in sorted(times["whole_us"].items(), key=lambda one: one[1]))
    rows = [
        f"whole network, us: {whole}; fastest: {times['reference']} (A/A {times['A/A']['ratio']:.3f})",
        "validation: " + ", ".join(f"{name} {100 * score['accuracy']:.2f} %" for name, score in found["whole"].items()),
        *(_row(trial, times["trials"]) for trial in found["trials"]),
    ]
    return [*rows, *(_verdict(test, times["trials"]) if test else [])]


def _row(trial: Mapping[str, Any], times: Mapping[str, Any]) -> str:
    choices = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in trial["chosen"].items())
    if trial["state"] != "complete":
        return f"{choices:12} {trial['state']}: {trial['reason']}"
    time, change = times[str(trial["number"])], trial["change"]
    return (
        f"{choices:12} {100 * trial['accuracy']['accuracy']:.2f} % "
        f"({change['points']:+.2f} points [{change['low']:+.2f}, {change['high']:+.2f}])  {time['best']} "
        f"{time['b_us']:.1f} us, {time['ratio']:.2f}x [{min(time['parts']):.2f}, {max(time['parts']):.2f}]"
    )


def _verdict(test: Mapping[str, Any], times: Mapping[str, Any]) -> list[str]:
    time = times[str(test["number"])]
    said = [
        f"test, {name}: {100 * score['accuracy']:.2f} % of {score['samples']}"
        for name, score in test["accuracy"].items()
    ]
    for name, change in test["change"].items():
        words = "the same" if change["low"] <= 0 <= change["high"] else "higher" if change["low"] > 0 else "lower"
        interval = f"{change['points']:+.2f} points [{change['low']:+.2f}, {change['high']:+.2f}]"
        said.append(f"winner (trial {test['number']}) against {name}: {interval}: {words}")
    is_same = all(change["high"] >= 0 for change in test["change"].values())
    is_fast = min(time["parts"]) >= FASTER
    verdict = "found" if is_same and is_fast else "not found: the front above is what there is"
    return [*said, f"same accuracy at {time['ratio']:.2f}x, asked for {FASTER}x: {verdict}"]
