# SPDX-License-Identifier: Apache-2.0
"""What moved, in plain words, for tasks that classify nothing, inputs that are no images, and answers in shares."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from edge_contract.channels import energy_shift, moment_shift
from edge_contract.counts import SHARE_UNIT, Counters
from edge_contract.profile import INPUTS, ReferenceProfile
from edge_contract.sensors import sensor_shifts
from edge_contract.tasks import CLASSIFY, TABLES

__all__ = ["input_words", "words"]

_LOOKS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "series": {
        "brightness": ("lower", "higher"),
        "contrast": ("calmer", "of larger swings"),
        "sharpness": ("smoother", "rougher"),
    },
    "vectors": {
        "brightness": ("lower", "higher"),
        "contrast": ("nearer to the middle", "further out"),
        "sharpness": ("without extremes", "with extremes"),
    },
    "audio": {
        "brightness": ("quieter", "louder"),
        "contrast": ("lower in pitch", "higher in pitch or noisier"),
        "sharpness": ("steadier", "more of clicks and bangs"),
    },
}
_NAMES: Final = {"series": "series", "vectors": "inputs", "audio": "sounds"}


def words(channel: str, profile: ReferenceProfile, counters: Counters) -> str:
    """Return one sentence about a channel, or nothing where the classifier's words fit.

    Example:
        >>> from edge_contract.counts import Counters
        >>> profile = ReferenceProfile.blank(("any",), "anomaly")
        >>> words("latency", profile, profile.counters)
        ''
    """
    if channel == "input" and profile.look.kind != "images":
        return input_words(profile, counters) or "inputs look different"
    if channel == "energy" and profile.scores == "shares":
        shift = energy_shift(profile, counters)
        return f"lead of the best class {abs(shift):.1f} deviations {'smaller' if shift < 0 else 'larger'}"
    if profile.task == CLASSIFY:
        return ""
    told = _TOLD.get((profile.task, channel))
    return "" if told is None else told(profile, counters)


def _table(profile: ReferenceProfile, counters: Counters, name: str) -> tuple[Sequence[int], Sequence[int]]:
    place = TABLES[profile.task].index(name)
    return counters.tables[place], profile.counters.tables[place]


def _shares(counts: Sequence[int]) -> list[float]:
    total = max(sum(counts), 1)
    return [count / total for count in counts]


def _name(names: Sequence[str], place: int, size: int) -> str:
    """Return a class's name; the last place of a table that is shorter than the names is shared."""
    shared = len(names) > size and place == size - 1
    return "other" if shared or place >= len(names) else names[place]


def _signal(what: str) -> Callable[[ReferenceProfile, Counters], str]:
    def told(profile: ReferenceProfile, counters: Counters) -> str:
        if counters.noise != (0, 0):
            return f"{what} moved"
        shift = energy_shift(profile, counters)
        if abs(shift) < 0.1:
            return f"{what} spread otherwise"
        return f"{what} {abs(shift):.1f} deviations {'lower' if shift < 0 else 'higher'}"

    return told


def _score(profile: ReferenceProfile, counters: Counters) -> str:
    if not counters.tables or counters.noise != (0, 0):
        return "scores of the boxes moved"
    here, there = _table(profile, counters, "boxes")
    empty = [table[0] / max(sum(table), 1) for table in (there, here)]
    return (
        f"{_signal('score of the best box')(profile, counters)} (frames without a box {empty[0]:.0%} → {empty[1]:.0%})"
    )


def _boxes(profile: ReferenceProfile, counters: Counters) -> str:
    here, there = _table(profile, counters, "boxes")
    edges = profile.parts.edges[0]
    few, many = (sum(i * share for i, share in enumerate(_shares(table))) for table in (there, here))
    unit = "boxes per frame" if edges[-1] - edges[0] == len(edges) - 1 else "places on the scale of boxes per frame"
    return f"{few:.1f} → {many:.1f} {unit}"


def _kinds(profile: ReferenceProfile, counters: Counters) -> str:
    here, there = _table(profile, counters, "kinds")
    new, old = _shares(here), _shares(there)
    place = max(range(len(new)), key=lambda i: abs(new[i] - old[i]))
    name = _name(profile.parts.names, place, len(new))
    return f"boxes of class '{name}' {old[place]:.0%} → {new[place]:.0%}"


def _sizes(profile: ReferenceProfile, counters: Counters) -> str:
    higher = _superiority(*_table(profile, counters, "areas"))
    return (
        f"boxes {'larger' if higher > 0.5 else 'smaller'} than the reference's ({max(higher, 1 - higher):.0%} of pairs)"
    )


def _areas(profile: ReferenceProfile, counters: Counters) -> str:
    here, there = _table(profile, counters, "areas")
    n, m = max(counters.n_sampled, 1) * SHARE_UNIT, max(profile.size, 1) * SHARE_UNIT
    place = max(range(len(here)), key=lambda i: abs(here[i] / n - there[i] / m))
    name = _name(profile.parts.names, place, len(here))
    return f"area of class '{name}' {there[place] / m:.0%} → {here[place] / n:.0%}"


def _features(profile: ReferenceProfile, counters: Counters) -> str:
    shifts = moment_shift(profile, counters)
    distance = sum(value * value for value in shifts[: len(shifts) // 2]) ** 0.5
    what = "outputs together" if profile.projection.source == "outputs" else "features"
    return f"{what} moved by {distance:.1f} deviations"


def _tail(profile: ReferenceProfile, counters: Counters) -> str:
    here, there = _table(profile, counters, "tail")
    beyond = [sum(_shares(table)[4:]) for table in (there, here)]
    return f"{_signal('error')(profile, counters)} (the largest errors {beyond[0]:.0%} → {beyond[1]:.0%})"


_TOLD: Final[Mapping[tuple[str, str], Callable[[ReferenceProfile, Counters], str]]] = {
    ("detect", "score"): _score,
    ("detect", "boxes"): _boxes,
    ("detect", "class"): _kinds,
    ("detect", "area"): _sizes,
    ("detect", "embedding"): _features,
    ("regress", "output"): _signal("output"),
    ("regress", "embedding"): _features,
    ("anomaly", "error"): _tail,
    ("anomaly", "embedding"): _features,
    ("segment", "confidence"): _signal("confidence"),
    ("segment", "area"): _areas,
}


def input_words(profile: ReferenceProfile, counters: Counters) -> str:
    """Return how the inputs of a window differ from the reference's, in words for series, sound or vectors."""
    kind, found = profile.look.kind, list[str]()
    for name in INPUTS:
        here, there = getattr(counters, name), getattr(profile.counters, name)
        higher = _superiority(here, there)
        if abs(higher - 0.5) > 0.1:
            word = _LOOKS[kind][name][higher > 0.5]
            found.append(f"{_NAMES[kind]} {word} than the reference's ({max(higher, 1 - higher):.0%} of pairs)")
    shifts = sensor_shifts(profile, counters) if counters.noise == (0, 0) else []
    if shifts:
        worst = max(range(len(shifts)), key=lambda i: abs(shifts[i]))
        if abs(shifts[worst]) > 0.2:
            found.append(f"sensor {worst} moved by {shifts[worst]:+.1f} deviations")
    return "; ".join(found)


def _superiority(here: Sequence[int], there: Sequence[int]) -> float:
    """Return P(window > reference) + P(equal)/2, from bins (Mann-Whitney); a half where either is empty."""
    pairs = sum(here) * sum(there)
    below, wins = 0, 0.0
    for a, b in zip(here, there, strict=True):
        wins += a * (below + b / 2)
        below += b
    return wins / pairs if pairs > 0 else 0.5
